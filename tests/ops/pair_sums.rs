//! Sums over pairs of rows against plain f64 loops.

use burn::tensor::DType;
use inscape::ops::{PairForm, PairSums, PairTile, pair_sums, pair_sums_reference};

use super::batch::{EPS, panic_of, same_on_any_threads};
use super::near::{Near, Rounding, within};
use super::rows::{matrix, numbers, vector};
use super::*;

type PairOp = fn([&PairTile; 2], [PairForm; 2], [usize; 2]) -> PairSums;

const DOT: PairForm = PairForm::Dot;
const RBF: PairForm = PairForm::Rbf { gamma: 0.7 };
const FORMS: [PairForm; 6] = [
    DOT,
    PairForm::OneMinus,
    PairForm::SquaredEuclidean,
    PairForm::Euclidean,
    RBF,
    PairForm::Rbf { gamma: 40.0 }, // down to numbers below the least that f32 holds
];

struct Tiles {
    name: &'static str,
    size: [usize; 2],
    place: [usize; 2],
    forms: [PairForm; 2],
    view: View,
    product: fn(usize) -> f32,
}

fn tiles(name: &'static str, size: [usize; 2], place: [usize; 2]) -> Tiles {
    Tiles {
        name,
        size,
        place,
        forms: [RBF, PairForm::SquaredEuclidean],
        view: View::Plain,
        product: uniform,
    }
}

/// A workgroup takes 64 rows and as many columns, and sixteen of their sums are added at once; the CPU
/// takes 64 rows and 512 columns.
fn cases() -> Vec<Tiles> {
    let view = |view, case| Tiles { view, ..case };
    let mut cases = vec![
        tiles("one pair", [1, 1], [0, 1]),
        tiles("the diagonal alone", [1, 1], [5, 5]),
        tiles("no rows", [0, 7], [0, 1]),
        tiles("no columns", [7, 0], [0, 1]),
        tiles("below the diagonal", [9, 9], [20, 11]),
        tiles("touching the diagonal from below", [9, 9], [8, 0]),
        tiles("one pair of a tile", [9, 9], [7, 0]),
        tiles("right of the diagonal", [9, 9], [0, 9]),
        tiles("on the diagonal", [63, 63], [0, 0]),
        tiles("a block", [64, 64], [3, 3]),
        tiles("a block and one", [65, 65], [64, 64]),
        tiles("off the diagonal", [130, 70], [10, 31]),
        tiles("across the diagonal", [130, 70], [31, 10]),
        tiles("one row", [1, 1000], [0, 0]),
        tiles("one column", [1000, 1], [0, 1000]),
        tiles("16 blocks of columns", [3, 1024], [0, 5]),
        tiles("17 blocks of columns", [3, 1025], [0, 5]),
        tiles("257 blocks of rows", [64 * 256 + 1, 2], [0, 1 << 20]),
        tiles("c = 511", [5, 511], [0, 0]),
        tiles("c = 512", [5, 512], [0, 0]),
        tiles("c = 513", [5, 513], [0, 0]),
        view(View::Transposed, tiles("transposed", [70, 90], [0, 20])),
        view(View::Sliced, tiles("sliced", [70, 90], [20, 0])),
        Tiles {
            product: few_values,
            ..tiles("ties, many at 0", [80, 80], [0, 0])
        },
        Tiles {
            forms: [DOT, DOT],
            product: |i| 0.1 + 1e-3 * uniform(i),
            ..tiles("a long sum of one sign", [1, 1 << 20], [0, 1])
        },
    ];
    for f in FORMS {
        for g in FORMS {
            cases.push(Tiles {
                forms: [f, g],
                ..tiles("every pair of forms", [20, 33], [4, 0])
            });
        }
    }
    cases
}

fn large() -> Vec<Tiles> {
    let case = tiles("over 65,535 groups", [1, 64 * 65_535 + 1], [0, 1]);
    let forms = [DOT, PairForm::OneMinus];
    vec![Tiles { forms, ..case }]
}

/// A place in side b is this much further along its fill.
const OTHER: usize = 1 << 24;

impl Tiles {
    fn square(i: usize) -> f32 {
        1.0 + uniform(i + 77)
    }

    fn other_square(i: usize) -> f32 {
        Self::square(i + OTHER)
    }

    fn side(&self, side: usize, on: &Device, dtype: DType) -> PairTile {
        let [r, c] = self.size;
        let square = [Self::square, Self::other_square][side];
        let square = |n: usize| vector(n, self.view, square, on, dtype);
        let products = matrix(self.size, self.view, self.product, on, dtype);
        PairTile {
            // Side b has the same products in another order.
            products: if side == 0 {
                products
            } else {
                products.flip([0, 1])
            },
            row_squares: square(r),
            column_squares: square(c),
        }
    }

    fn run(&self, op: PairOp, on: &Device, dtype: DType) -> [Vec<f64>; 2] {
        let [a, b] = [0, 1].map(|side| self.side(side, on, dtype));
        let sums = op([&a, &b], self.forms, self.place);
        let dims = (sums.by_row.dims(), sums.by_column.dims());
        assert_eq!(
            dims,
            ([self.size[0], 3], [self.size[1], 2]),
            "{}",
            self.name
        );
        assert_eq!(sums.by_row.dtype(), dtype, "{}", self.name);
        [numbers(sums.by_row), numbers(sums.by_column)]
    }

    /// The sums, each added up in a tree or one term after the other.
    fn oracle(&self, by: Rounding, tree: bool) -> [Vec<Near>; 2] {
        let [r, c] = self.size;
        let mut rows = vec![[(); 3].map(|_| Vec::new()); r];
        let mut columns = vec![[(); 2].map(|_| Vec::new()); c];
        for (i, of_row) in rows.iter_mut().enumerate() {
            for j in (0..c).filter(|j| self.place[1] + j > self.place[0] + i) {
                let [f, g] = [0, 1].map(|side| self.formed(by, side, i, j));
                of_row[0].push(by.times(f, g));
                of_row[1].push(f);
                of_row[2].push(g);
                columns[j][0].push(f);
                columns[j][1].push(g);
            }
        }
        let sum = |terms: &Vec<Near>| {
            let lanes = if tree { terms.len().max(1) } else { 1 };
            by.sum(lanes, terms.iter().copied())
        };
        [
            rows.iter().flatten().map(sum).collect(),
            columns.iter().flatten().map(sum).collect(),
        ]
    }

    fn formed(&self, by: Rounding, side: usize, i: usize, j: usize) -> Near {
        let [r, c] = self.size;
        let at = [i * c + j, r * c - 1 - (i * c + j)][side];
        let given = |x: f32| Near {
            x: x.into(),
            off: 0.0,
        };
        let p = given((self.product)(at));
        let square = |i| given([Self::square, Self::other_square][side](i));
        let d = by.minus(by.plus(square(i), square(j)), by.scaled(2.0, p));
        let squared = Near {
            x: d.x.max(0.0),
            off: d.off,
        };
        match self.forms[side] {
            PairForm::Dot => p,
            PairForm::OneMinus => by.minus(given(1.0), p),
            PairForm::SquaredEuclidean => squared,
            PairForm::Euclidean => by.root(squared),
            PairForm::Rbf { gamma } => exp(by, by.scaled(-gamma, squared)),
        }
    }
}

/// WGSL's is good to `3 + 2 |x|` units in the last place.
fn exp(by: Rounding, x: Near) -> Near {
    let y = x.x.exp();
    let off = y * (x.off.exp_m1() + (3.0 + 2.0 * x.x.abs()) * EPS) + f64::from(f32::MIN_POSITIVE);
    by.near(y, off)
}

fn compare(case: &Tiles, got: &[Vec<f64>; 2], want: &[Vec<Near>; 2]) -> Result<(), String> {
    let name = |by: &str| format!("{} {:?} by {by}", case.name, case.forms);
    within(&name("row"), &got[0], &want[0])?;
    within(&name("column"), &got[1], &want[1])
}

fn suite(op: PairOp, cases: &[Tiles], on: &Device, tree: bool) {
    for case in cases {
        let want = case.oracle(Rounding::F32, tree);
        compare(case, &case.run(op, on, DType::F32), &want).unwrap();
    }
}

#[test]
fn the_cpu_form_is_right() {
    suite(pair_sums, &cases(), &Device::cpu(), true);
    suite(pair_sums, &large(), &Device::cpu(), true);
}

#[test]
fn the_reference_is_right() {
    suite(pair_sums_reference, &cases(), &Device::cpu(), false);
}

#[test]
fn f64_takes_the_reference() {
    for case in cases() {
        let want = case.oracle(Rounding::F64, false);
        compare(
            &case,
            &case.run(pair_sums, &Device::cpu(), DType::F64),
            &want,
        )
        .unwrap();
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_are_right() {
    suite(pair_sums, &cases(), &gpu(), true);
    suite(pair_sums, &large(), &gpu(), true);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_give_the_same_bits_every_time() {
    let (case, on) = (tiles("odd", [130, 1100], [10, 31]), gpu());
    let run = || case.run(pair_sums, &on, DType::F32);
    assert_eq!(run(), run());
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let case = tiles("odd", [1000, 530], [10, 31]);
    assert!(same_on_any_threads(|| {
        case.run(pair_sums, &Device::cpu(), DType::F32)
    }));
}

/// Tiles over the upper triangle give the sums of the whole matrix.
#[test]
fn tiles_add_up_to_the_whole() {
    let (n, on) = (150, Device::cpu());
    let value = |i: usize, j: usize| uniform(i.min(j) * n + i.max(j));
    let mut sums = vec![0f64; n];
    for start in (0..n).step_by(40) {
        let (r, c) = (40.min(n - start), n - start);
        let at = |i: usize| value(start + i / c, start + i % c);
        let data = TensorData::new((0..r * c).map(at).collect(), [r, c]);
        let side = PairTile {
            products: Tensor::from_data(data, on.tensor()),
            row_squares: Tensor::zeros([r], on.tensor()),
            column_squares: Tensor::zeros([c], on.tensor()),
        };
        let tile = pair_sums([&side, &side], [DOT, DOT], [start, start]);
        let (by_row, by_column) = (numbers(tile.by_row), numbers(tile.by_column));
        (0..r).for_each(|i| sums[start + i] += by_row[3 * i + 1]);
        (0..c).for_each(|j| sums[start + j] += by_column[2 * j]);
    }
    for (i, sum) in sums.into_iter().enumerate() {
        let others = (0..n).filter(|&j| j != i);
        let exact: f64 = others.map(|j| f64::from(value(i, j))).sum();
        assert!((sum - exact).abs() < 8.0 * EPS * n as f64, "row {i}");
    }
}

/// A pair too many, a form in the other's place, and a sum that rounds as it grows must show.
#[test]
fn planted_faults_are_caught() {
    fn with_diagonal(sides: [&PairTile; 2], forms: [PairForm; 2], at: [usize; 2]) -> PairSums {
        pair_sums(sides, forms, [at[0], at[1] + 1])
    }
    fn swapped(sides: [&PairTile; 2], [f, g]: [PairForm; 2], at: [usize; 2]) -> PairSums {
        pair_sums(sides, [g, f], at)
    }
    fn naive(sides: [&PairTile; 2], forms: [PairForm; 2], at: [usize; 2]) -> PairSums {
        let mut sums = pair_sums(sides, forms, at);
        let terms: Vec<f32> = block_on(read(sides[0].products.clone())).unwrap();
        let sum: f32 = terms.iter().fold(0.0, |sum, x| sum + x);
        let range = [0..1, 1..2];
        let value = Tensor::<2>::full([1, 1], sum, &sums.by_row.device());
        sums.by_row = sums.by_row.slice_assign(range, value);
        sums
    }
    let long = cases().into_iter().find(|c| c.name.starts_with("a long"));
    let faults: [(PairOp, Tiles); 3] = [
        (with_diagonal, tiles("on the diagonal", [40, 40], [0, 0])),
        (swapped, tiles("odd", [40, 40], [0, 0])),
        (naive, long.unwrap()),
    ];
    for (fault, case) in faults {
        let want = case.oracle(Rounding::F32, true);
        let got = case.run(fault, &Device::cpu(), DType::F32);
        let caught = compare(&case, &got, &want).unwrap_err();
        assert!(caught.contains("by row"), "{caught}");
    }
}

#[test]
fn sides_that_do_not_pair_up_panic_with_the_shapes() {
    let case = tiles("", [3, 4], [0, 0]);
    let a = case.side(0, &Device::cpu(), DType::F32);
    let b = PairTile {
        column_squares: a.row_squares.clone(),
        ..a.clone()
    };
    let text = panic_of(|| pair_sums([&a, &b], [DOT, DOT], [0, 0]));
    assert!(
        text.contains("pair_sums: [3, 4] products of 3 rows and 3 columns"),
        "{text}"
    );
}
