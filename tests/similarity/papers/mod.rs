//! What papers claim of the metrics, on planted data and on small networks; a file a paper.

#[path = "../../shared/digits.rs"]
mod digits;
#[allow(dead_code, reason = "shared with other suites")]
#[path = "../../shared/draws.rs"]
mod draws;
#[allow(dead_code, reason = "each paper uses a part of it")]
mod nets;

mod cannistraci;
mod convergent_learning;
mod duong;
mod li;
mod moschella;
mod platonic;
mod rosetta_neurons;
mod topology_and_geometry;
mod topology_divergence;
mod training_manifold;
mod universal_neurons;
mod vits_and_cnns;
