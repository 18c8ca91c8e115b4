//! What papers claim of the metrics, on planted data and on small networks; a file a paper.
