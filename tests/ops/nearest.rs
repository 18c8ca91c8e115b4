//! Nearest others, tile by tile, against sorting each row.

use burn::tensor::DType;
use inscape::ops::{Nearest, NearestBy, PairTile, nearest};

use super::batch::{integers, panic_of};
use super::*;

const BOTH: [NearestBy; 2] = [NearestBy::Product, NearestBy::Distance];

struct Whole {
    n: usize,
    k: usize,
    by: NearestBy,
    product: fn(usize) -> f32,
    /// Where the tiles of columns end.
    ends: Vec<usize>,
}

fn square(i: usize) -> f32 {
    2.0 + (hash(i) % 3) as f32 // ties in distance too
}

impl Whole {
    fn tile(&self, rows: [usize; 2], columns: [usize; 2], on: &Device) -> PairTile {
        let ([r, c], n) = ([rows[1] - rows[0], columns[1] - columns[0]], self.n);
        let at = |i: usize| (self.product)((rows[0] + i / c) * n + columns[0] + i % c);
        let squares = |[first, end]: [usize; 2]| {
            let values: Vec<f32> = (first..end).map(square).collect();
            Tensor::<1>::from_floats(&values[..], on.tensor())
        };
        let products = TensorData::new((0..r * c).map(at).collect(), [r, c]);
        PairTile {
            products: Tensor::from_data(products, on.tensor()),
            row_squares: squares(rows),
            column_squares: squares(columns),
        }
    }

    /// The lists of the rows `rows`, tiles in the order of their columns or the reverse.
    fn run(&self, rows: [usize; 2], reverse: bool, on: &Device) -> Nearest {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let mut tiles: Vec<_> = starts.zip(self.ends.iter().copied()).collect();
        if reverse {
            tiles.reverse();
        }
        let step = |found, &(start, end): &(usize, usize)| {
            let tile = self.tile(rows, [start, end], on);
            Some(nearest(found, &tile, [rows[0], start], self.by, self.k))
        };
        tiles.iter().fold(None, step).unwrap()
    }

    /// Sorted stably, so that of equals the lower index comes first.
    fn oracle(&self, i: usize) -> (Vec<f32>, Vec<i64>) {
        let near = |j: usize| {
            let p = (self.product)(i * self.n + j);
            match self.by {
                NearestBy::Product => p,
                NearestBy::Distance => p * 2.0 - square(j) - square(i),
            }
        };
        let mut order: Vec<usize> = (0..self.n).filter(|&j| j != i).collect();
        order.sort_by(|&a, &b| near(b).partial_cmp(&near(a)).unwrap());
        order.truncate(self.k);
        let values = order.iter().map(|&j| near(j)).collect();
        (values, order.into_iter().map(|j| j as i64).collect())
    }

    fn compare(&self, found: Nearest, first: usize) -> Result<(), String> {
        let [r, k] = found.values.dims();
        assert_eq!((k, found.indices.dims()), (self.k, [r, k]));
        let values: Vec<f32> = block_on(read(found.values)).unwrap();
        let indices = integers(found.indices);
        for i in 0..r {
            let (near, order) = self.oracle(first + i);
            let (values, indices) = (&values[i * k..][..k], &indices[i * k..][..k]);
            if indices != order || values != near {
                return Err(format!("row {}: {indices:?} for {order:?}", first + i));
            }
        }
        Ok(())
    }
}

fn wholes() -> Vec<Whole> {
    let mut wholes = Vec::new();
    for by in BOTH {
        for product in [uniform as fn(usize) -> f32, few_values] {
            for (n, k, ends) in [
                (2, 1, vec![1, 2]),
                (40, 39, vec![1, 2, 20, 40]), // shorter tiles than lists
                (150, 1, vec![64, 128, 150]),
                (150, 7, vec![150]),
                (300, 18, vec![5, 260, 300]),
            ] {
                wholes.push(Whole {
                    n,
                    k,
                    by,
                    product,
                    ends,
                });
            }
        }
    }
    wholes
}

fn suite(on: &Device) {
    for whole in wholes() {
        for rows in [[0, whole.n], [whole.n / 3, whole.n / 2 + 1]] {
            whole.compare(whole.run(rows, false, on), rows[0]).unwrap();
        }
    }
}

#[test]
fn lists_are_right_on_the_cpu() {
    suite(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn lists_are_right_on_the_gpu() {
    suite(&gpu());
}

#[test]
fn f64_is_taken() {
    let on = Device::cpu();
    let whole = Whole {
        k: 3,
        ..wholes().pop().unwrap()
    };
    let tile = whole.tile([0, 20], [0, 300], &on);
    let wide = PairTile {
        products: tile.products.cast(DType::F64),
        row_squares: tile.row_squares.cast(DType::F64),
        column_squares: tile.column_squares.cast(DType::F64),
    };
    let found = nearest(None, &wide, [0, 0], whole.by, 3);
    assert_eq!(found.values.dtype(), DType::F64);
    whole.compare(found, 0).unwrap();
}

/// Tiles in the wrong order among ties, and a row that is its own neighbour, must show.
#[test]
fn planted_faults_are_caught() {
    let on = Device::cpu();
    let whole = Whole {
        n: 150,
        k: 7,
        by: NearestBy::Product,
        product: few_values,
        ends: vec![64, 150],
    };
    let rows = [0, 150];
    assert!(whole.compare(whole.run(rows, true, &on), 0).is_err());
    let tile = whole.tile(rows, rows, &on);
    let elsewhere = nearest(None, &tile, [1000, 0], whole.by, whole.k);
    assert!(whole.compare(elsewhere, 0).is_err());
}

#[test]
fn lists_of_other_rows_panic() {
    let on = Device::cpu();
    let whole = wholes().pop().unwrap();
    let tile = |rows| whole.tile(rows, [0, 300], &on);
    let found = nearest(None, &tile([0, 4]), [0, 0], whole.by, 2);
    let text = panic_of(|| nearest(Some(found), &tile([0, 5]), [0, 0], whole.by, 2));
    assert!(text.contains("nearest: 5 rows and 300 columns of [5, 300], 4 rows so far"));
}
