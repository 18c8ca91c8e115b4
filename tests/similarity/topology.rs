//! Topology and curvature: golden values, plain definitions, invariances, and input that has none.

use std::f64::consts::{FRAC_PI_2, TAU};

use inscape::similarity::{
    Bar, Curvature, EdgeLength, Error, KnnGraph, Metric, Persistence, imd, mst_divergence,
    persistence, ricci, rtd,
};

use crate::common::{Golden, Matrix, array, close, compare, golden, hold, input, metric};

const ALL: [&str; 5] = [
    "rtd[points=500,trials=10]",
    "mst_divergence[points=500,trials=10]",
    "imd[k=5]",
    "ricci[kind=ollivier,k=10]",
    "ricci[kind=forman,k=10]",
];

fn topo(name: &str) -> Matrix {
    input("topo", name)
}

fn of(x: &Matrix) -> Persistence {
    persistence(&x.f64()).expect("finite rows")
}

// ---- golden values

#[test]
fn goldens_of_imd_hold() {
    let imd = "imd_exact[k=5,t=logspace(-1,1,256),laplacian=normalised,scale=1000000.0]";
    let of = |case: &str| {
        let value = golden(&format!("{case}/{imd}"));
        Golden {
            case: case.to_owned(),
            metric: "imd[k=5]".to_owned(),
            value,
            atol_f32: 1e-8 * value, // who is near does not depend on the precision
        }
    };
    hold(&["main", "wide", "dup"].map(of), |g| 1e-8 * g.value);
}

#[test]
fn goldens_of_rtd_hold() {
    for (a, b) in [("cloudA", "cloudB"), ("ringA", "ringB")] {
        let (x, y) = (topo(a), topo(b));
        let want = golden(&format!(
            "topo/rtd[pair={a},{b},normalise=0.9 quantile,trials=single, all points,direction=average]"
        ));
        for (x, y) in [(x.f64(), y.f64()), (x.f32(), y.f32())] {
            let got = rtd(&x, &y, 500, 10).unwrap();
            println!("rtd {a} {b}: {got}, off by {:e}", (got - want).abs() / want);
            close(got, want, 1e-8 * want);
        }
        let want = golden(&format!(
            "topo/mst_divergence[pair={a},{b},formula=len MST(rx) - len MST(min(rx,ry)), symmetrised]"
        ));
        let got = mst_divergence(&x.f64(), &y.f64(), 500, 10).unwrap();
        println!("mst {a} {b}: {got}, off by {:e}", (got - want).abs() / want);
        close(got, want, 1e-8 * want);
    }
}

#[test]
fn goldens_of_persistence_hold() {
    for name in ["circle", "eight"] {
        let found = of(&topo(name));
        let (_, h0) = array("expected", &format!("topo/{name}_h0_deaths"));
        assert_eq!(found.h0.len(), h0.len());
        for (got, want) in found.h0.iter().zip(&h0) {
            close(*got, *want, 1e-8 * want);
        }
        let (shape, h1) = array("expected", &format!("topo/{name}_h1_pairs"));
        assert_eq!(found.h1.len(), shape[0]);
        for (got, want) in found.h1.iter().zip(h1.chunks(2)) {
            close(got.birth, want[0], 1e-8 * want[0]);
            close(got.death, want[1], 1e-8 * want[1]);
        }
        let cloud = |what: &str, rest: &str| golden(&format!("topo/{what}_h1[cloud={name}{rest}]"));
        close(found.total(), cloud("total_persistence", ""), 1e-8);
        close(found.longest(), cloud("max_persistence", ""), 1e-8);
        close(
            found.entropy(),
            cloud("persistent_entropy", ",base=e"),
            1e-8,
        );
    }
}

#[test]
fn goldens_of_curvature_hold() {
    let p = input("graph", "P").f64();
    let (_, adjacency) = array("expected", "graph/adjacency");
    for (by, name) in [
        (EdgeLength::Hop, "unweighted"),
        (EdgeLength::Euclidean, "euclidean"),
    ] {
        let graph = KnnGraph::new(&p, 4, by).unwrap();
        let edges = graph.edges();
        for i in 0..30 {
            for j in 0..30 {
                let joined = edges.contains(&(i.min(j), i.max(j)));
                assert_eq!(adjacency[i * 30 + j] == 1.0, joined, "{i} {j}");
            }
        }
        let got = graph.ollivier_ricci(0.5).unwrap();
        let (_, want) = array("expected", &format!("graph/ollivier_{name}"));
        assert_eq!(got.len(), want.len());
        let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
        let worst = off.fold(0.0, f64::max);
        println!("ollivier {name}: worst {worst:e}");
        assert!(worst < 1e-8, "{worst:e}");
        let mean = got.iter().sum::<f64>() / got.len() as f64;
        let id = format!("graph/ollivier_ricci_mean[k=4,alpha=0.5,weights={name}]");
        close(mean, golden(&id), 1e-9);
        let forman = [graph.forman_ricci(), graph.augmented_forman_ricci()];
        for (got, kind) in forman.into_iter().zip(["1d", "augmented"]) {
            assert_eq!(got, array("expected", &format!("graph/forman_{kind}")).1);
        }
    }
}

// ---- persistence by its definition

/// The full boundary matrix up to triangles, reduced from left to right (Edelsbrunner, Letscher &
/// Zomorodian 2002): no cohomology, no clearing, no apparent pairs.
fn plain_h1(x: &Matrix) -> Vec<Bar> {
    let distance = |i: usize, j: usize| {
        let square = |(a, b): (&f64, &f64)| (a - b).powi(2);
        x.row(i)
            .iter()
            .zip(x.row(j))
            .map(square)
            .sum::<f64>()
            .sqrt()
    };
    let mut simplices: Vec<(f64, Vec<usize>)> = Vec::new();
    for i in 0..x.n {
        simplices.push((0.0, vec![i]));
        for j in 0..i {
            simplices.push((distance(i, j), vec![j, i]));
            for k in 0..j {
                let longest = distance(i, j).max(distance(i, k)).max(distance(j, k));
                simplices.push((longest, vec![k, j, i]));
            }
        }
    }
    simplices.sort_by(|a, b| {
        a.0.total_cmp(&b.0)
            .then(a.1.len().cmp(&b.1.len()))
            .then(a.1.cmp(&b.1))
    });
    let place: std::collections::HashMap<Vec<usize>, usize> = simplices
        .iter()
        .enumerate()
        .map(|(at, s)| (s.1.clone(), at))
        .collect();
    let mut by_lowest: std::collections::HashMap<usize, std::collections::BTreeSet<usize>> =
        Default::default();
    let mut bars = Vec::new();
    for (death, simplex) in &simplices {
        if simplex.len() < 2 {
            continue;
        }
        let without = |k: usize| {
            let mut face = simplex.clone();
            face.remove(k);
            place[&face]
        };
        let mut column: std::collections::BTreeSet<usize> =
            (0..simplex.len()).map(without).collect();
        while let Some(&lowest) = column.last() {
            let Some(other) = by_lowest.get(&lowest) else {
                if simplex.len() == 3 && *death > simplices[lowest].0 {
                    bars.push(Bar {
                        birth: simplices[lowest].0,
                        death: *death,
                    });
                }
                by_lowest.insert(lowest, column);
                break;
            };
            column = column.symmetric_difference(other).copied().collect();
        }
    }
    bars.sort_by(|a, b| (a.birth, a.death).partial_cmp(&(b.birth, b.death)).unwrap());
    bars
}

#[test]
fn loops_agree_with_the_reduction_of_the_whole_boundary() {
    let lattice = Matrix::from_fn(25, 2, |i, j| if j == 0 { i / 5 } else { i % 5 } as f64);
    let mut clouds: Vec<Matrix> = (0..6)
        .map(|s| Matrix::random(18 + s, 1 + s, s as u64))
        .collect();
    // Many equal distances, equal points, a line.
    clouds.extend([
        lattice,
        Matrix::random(12, 2, 9).permuted(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3, 3]),
        Matrix::from_fn(9, 1, |i, _| i as f64),
    ]);
    let mut loops = 0;
    for x in &clouds {
        let (got, want) = (of(x).h1, plain_h1(x));
        assert_eq!(got.len(), want.len(), "{got:?} {want:?}");
        for (a, b) in got.iter().zip(&want) {
            close(a.birth, b.birth, 1e-12);
            close(a.death, b.death, 1e-12);
        }
        loops += got.len();
    }
    assert!(loops > 15, "{loops}");
}

/// Points of a regular polygon: one loop, born with the sides and filled when a triangle holds the
/// centre. A torus of two circles has two.
#[test]
fn known_shapes_have_their_loops() {
    let n = 30;
    let angle = |i: usize| TAU * i as f64 / n as f64;
    let circle = Matrix::from_fn(n, 2, |i, j| (angle(i) - FRAC_PI_2 * j as f64).cos());
    let found = of(&circle);
    assert_eq!((found.h0.len(), found.h1.len()), (n - 1, 1));
    close(found.h1[0].birth, 2.0 * (TAU / 60.0).sin(), 1e-12);
    close(found.h1[0].death, 3f64.sqrt(), 1e-12); // 30 is divisible by 3
    let m = 16;
    let turn = |i: usize| TAU * i as f64 / m as f64;
    let torus = Matrix::from_fn(m * m, 4, |i, j| {
        let by = if j < 2 { i / m } else { i % m };
        (turn(by) - FRAC_PI_2 * (j % 2) as f64).cos()
    });
    let found = of(&torus);
    let long: Vec<&Bar> = found.h1.iter().filter(|b| b.length() > 0.5).collect();
    assert_eq!(long.len(), 2, "{long:?}");
}

#[test]
fn few_points_have_few_classes() {
    let found = of(&Matrix::random(1, 3, 1));
    assert_eq!((found.h0.len(), found.h1.len()), (0, 0));
    let found = of(&Matrix::random(2, 3, 1));
    assert_eq!((found.h0.len(), found.h1.len()), (1, 0));
    assert_eq!(
        (found.total(), found.longest(), found.entropy()),
        (0.0, 0.0, 0.0)
    );
    let equal = of(&Matrix::from_fn(7, 2, |_, j| j as f64));
    assert_eq!(
        equal,
        Persistence {
            h0: vec![0.0; 6],
            h1: vec![]
        }
    );
    let huge = of(&Matrix::from_fn(2, 1, |i, _| 1e12 * i as f64));
    assert_eq!(huge.h0, [1e12]); // in the units of the rows
}

// ---- curvature by hand

/// Of a ring every edge is flat from six rows on; of a complete graph it is `stay` plus what the `k`
/// neighbours share.
#[test]
fn rings_are_flat_and_complete_graphs_are_round() {
    let ring = Matrix::from_fn(12, 2, |i, j| {
        (TAU * i as f64 / 12.0 - FRAC_PI_2 * j as f64).cos()
    });
    let graph = KnnGraph::new(&ring.f64(), 2, EdgeLength::Hop).unwrap();
    assert_eq!(graph.edges().len(), 12);
    for stay in [0.0, 0.25, 0.5] {
        for got in graph.ollivier_ricci(stay).unwrap() {
            close(got, 0.0, 1e-12);
        }
    }
    for n in [3, 5, 8] {
        let x = Matrix::random(n, 4, 3);
        let graph = KnnGraph::new(&x.f64(), n - 1, EdgeLength::Hop).unwrap();
        let k = (n - 1) as f64;
        for stay in [0.0f64, 0.5] {
            // Only the difference of what lies on the two ends has to go, one step.
            let want = 1.0 - (stay - (1.0 - stay) / k).abs();
            for got in graph.ollivier_ricci(stay).unwrap() {
                close(got, want, 1e-12);
            }
        }
        assert!(
            graph
                .augmented_forman_ricci()
                .iter()
                .all(|f| *f == 4.0 - 2.0 * k + 3.0 * (k - 1.0))
        );
    }
}

#[test]
fn a_graph_says_what_it_cannot_be() {
    let x = Matrix::random(6, 3, 1).f64();
    for k in [0, 6, 7] {
        assert!(matches!(
            KnnGraph::new(&x, k, EdgeLength::Hop),
            Err(Error::Undefined { .. })
        ));
    }
    let graph = KnnGraph::new(&x, 2, EdgeLength::Hop).unwrap();
    for stay in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(
            graph.ollivier_ricci(stay),
            Err(Error::Undefined { .. })
        ));
    }
    let twice = Matrix::random(6, 3, 1).permuted(&[0, 1, 2, 3, 4, 0]).f64();
    let graph = KnnGraph::new(&twice, 2, EdgeLength::Euclidean).unwrap();
    assert!(matches!(
        graph.ollivier_ricci(0.5),
        Err(Error::Undefined { .. })
    ));
    assert!(
        KnnGraph::new(&twice, 2, EdgeLength::Hop)
            .unwrap()
            .ollivier_ricci(0.5)
            .is_ok()
    );
    // Far apart, exp(-length²) is 0 in f64; only the differences count.
    let far = KnnGraph::new(&(x * 1e4), 2, EdgeLength::Euclidean).unwrap();
    assert!(
        far.ollivier_ricci(0.5)
            .unwrap()
            .iter()
            .all(|c| c.is_finite())
    );
}

// ---- the metrics

#[test]
fn equal_sides_and_what_is_not_seen() {
    let (x, y) = (Matrix::random(60, 6, 1), Matrix::random(60, 6, 2));
    let y = Matrix::from_fn(60, 6, |i, j| y.at(i, j) + 0.7 * x.at(i, j));
    let order = [5, 3, 1, 0, 2, 4];
    let changes = [
        y.rotated(0.8),
        y.map(|v| 3.0 * v),
        Matrix::from_fn(60, 6, |i, j| y.at(i, j) + j as f64),
        Matrix::from_fn(60, 6, |i, j| y.at(i, order[j])),
    ];
    for name in ALL {
        let facts = metric(name).facts();
        close(
            compare(name, &x.f64(), &x.f64()),
            facts.same.unwrap(),
            1e-12,
        );
        let value = compare(name, &x.f64(), &y.f64());
        close(
            compare(name, &y.f64(), &x.f64()),
            value,
            1e-12 * value.abs().max(1.0),
        );
        close(
            compare(name, &x.f32(), &y.f32()),
            value,
            1e-5 * value.abs().max(1.0),
        );
        for changed in &changes {
            let got = compare(name, &x.f64(), &changed.f64());
            close(got, value, 1e-7 * value.abs().max(1.0));
        }
        let stretched = Matrix::from_fn(60, 6, |i, j| y.at(i, j) * (1 + 3 * j) as f64);
        let got = compare(name, &x.f64(), &stretched.f64());
        assert!((got - value).abs() > 1e-3, "{name}: {got} {value}");
    }
}

#[test]
fn names_turn_into_metrics_and_back() {
    for name in ALL {
        assert_eq!(metric(name).to_string(), name);
    }
    for (short, long) in [
        ("rtd", "rtd[points=500,trials=10]"),
        (
            "mst_divergence[trials=1]",
            "mst_divergence[points=500,trials=1]",
        ),
        ("ricci", "ricci[kind=ollivier,k=10]"),
        ("ricci[k=3,kind=forman]", "ricci[kind=forman,k=3]"),
    ] {
        assert_eq!(metric(short).to_string(), long);
    }
    for wrong in [
        "rtd[points=2]",
        "rtd[points=32769]",
        "rtd[trials=0]",
        "imd[k=0]",
        "ricci[kind=x]",
        "imd[points=3]",
    ] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
    let x = Matrix::random(20, 3, 1).f64();
    for error in [
        rtd(&x, &x, 2, 1),
        imd(&x, &x, 0),
        ricci(&x, &x, Curvature::Forman, 0),
    ] {
        assert!(matches!(error, Err(Error::UnknownMetric { .. })));
    }
}

#[test]
fn draws_are_always_the_same_and_shared_by_both_sides() {
    let (x, y) = (Matrix::random(150, 5, 1), Matrix::random(150, 4, 2));
    let name = "rtd[points=40,trials=3]";
    let first = compare(name, &x.f64(), &y.f64());
    close(compare(name, &x.f64(), &y.f64()), first, 0.0);
    close(
        compare(name, &x.f64(), &x.map(|v| 2.0 * v).f64()),
        0.0,
        1e-12,
    );
    assert!(first > 1.0);
    let other = compare("rtd[points=40,trials=4]", &x.f64(), &y.f64());
    assert!((first - other).abs() > 1e-6);
    // No more rows than points: one draw of all.
    let all = compare("rtd[points=150,trials=7]", &x.f64(), &y.f64());
    close(
        compare("rtd[points=999,trials=1]", &x.f64(), &y.f64()),
        all,
        0.0,
    );
}

#[test]
fn degenerate_sides_are_right_or_named() {
    let y = Matrix::random(40, 5, 2);
    let equal = Matrix::from_fn(40, 5, |_, j| j as f64);
    let few = Matrix::from_fn(40, 2, |i, j| (i % 3 + j) as f64);
    let constant = Matrix::from_fn(40, 5, |i, j| if j == 2 { 7.0 } else { y.at(i, j) });
    let wide = Matrix::random(12, 300, 4);
    let shifted = y.map(|v| v + 1e4);
    for name in [
        "rtd",
        "mst_divergence",
        "imd",
        "ricci",
        "ricci[kind=forman]",
    ] {
        for (side, what) in [
            (&equal, "equal"),
            (&few, "few"),
            (&constant, "constant"),
            (&shifted, "shifted"),
        ] {
            match metric(name).compare(&y.f64(), &side.f64()) {
                Ok(value) => assert!(value.is_finite(), "{name} {what}: {value}"),
                Err(error) => assert!(error.to_string().contains("undefined"), "{error}"),
            }
        }
        close(
            compare(name, &wide.f64(), &wide.f64()),
            metric(name).facts().same.unwrap(),
            1e-12,
        );
        let value = compare(name, &y.f64(), &constant.f64());
        let f32 = compare(name, &y.f32(), &constant.map(|v| v + 1e4).f32());
        close(f32, value, 5e-2 * value.abs().max(1.0));
    }
    for name in ["rtd", "mst_divergence"] {
        assert!(matches!(
            metric(name).compare(&y.f64(), &equal.f64()),
            Err(Error::At { .. })
        ));
    }
}

/// Rows in another order are the same cloud: only the metrics that pair rows see it.
#[test]
fn imd_is_blind_to_the_order_of_rows() {
    let (x, y) = (input("main", "X"), input("main", "Y"));
    let order: Vec<usize> = (0..200).map(|i| (i * 77) % 200).collect();
    let value = imd(&x.f64(), &y.f64(), 5).unwrap();
    close(
        imd(&x.f64(), &y.permuted(&order).f64(), 5).unwrap(),
        value,
        1e-7 * value,
    );
    let paired = |y: &Matrix| ricci(&x.f64(), &y.f64(), Curvature::Forman, 10).unwrap();
    assert!(paired(&y) > paired(&y.permuted(&order)) + 0.1);
}
