//! Sums over pairs of rows: what kernels and distances of two representations are compared by.

mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, DType, Dispatch, Flex, IntDType, Shape, TensorMetadata, backend_extension,
};
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_flex::FlexTensor;

use host::{HostSide, sums};

use super::cube;
use super::flex::{all_f32, dims, floats, matrix};
use super::masks::{along_rows, below, under_rows};
use super::topk::bools;
use crate::wgsl;

/// A tile of the products of a representation's rows with one another.
#[derive(Clone, Debug)]
pub struct PairTile {
    /// Of row `row0 + i` with row `col0 + j`: `[r, c]`.
    pub products: Tensor<2>,
    /// Squared lengths of the rows `row0..row0 + r`: `[r]`.
    pub row_squares: Tensor<1>,
    /// Squared lengths of the rows `col0..col0 + c`: `[c]`.
    pub column_squares: Tensor<1>,
}

/// What is taken of two rows, given their product `p` and their squared lengths `s` and `t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PairForm {
    /// `p`.
    Dot,
    /// `1 - p`: the correlation or cosine distance of rows of length 1.
    OneMinus,
    /// `d² = max(0, s + t - 2 p)`.
    SquaredEuclidean,
    /// `d`.
    Euclidean,
    /// `exp(-gamma d²)`.
    Rbf {
        /// One over the squared distance at which the kernel falls to 1/e.
        gamma: f64,
    },
}

/// The sums that [`pair_sums`] takes of a tile, `f` being the form of side a and `g` that of side b.
#[derive(Clone, Debug)]
pub struct PairSums {
    /// Of every row, over its columns: Σ f g, Σ f, Σ g: `[r, 3]`.
    pub by_row: Tensor<2>,
    /// Of every column, over its rows: Σ f, Σ g: `[c, 2]`.
    pub by_column: Tensor<2>,
}

/// Sums over the pairs of rows in a tile, each pair once, for two representations at once.
///
/// Only entries strictly right of the diagonal of the whole count, those with `col0 + j > row0 + i`:
/// over tiles that cover the upper triangle, a row's sum over all others is that of its row and that
/// of its column together. Both sides are tiles `[r, c]` at the same place `[row0, col0]`, of finite
/// values; nothing of their size is made. The sums have no gradient.
///
/// # Panics
/// If the sides differ in shape, a squared length is missing, or on an autodiff device.
///
/// Cost: one pass over both tiles. On the CPU f32 forms are summed in f64 and rounded once, on all
/// threads, with 16 bytes of scratch for every column and 64 rows. On wgpu the sums are added in pairs
/// (rounding grows with the logarithm of their length), with 1/13 of a tile as scratch. Other floats
/// and runtimes without WGSL take the reference, which holds several tiles.
///
/// Source: the sums of Gretton et al. 2005 and Song et al. 2012 (HSIC) and of Székely, Rizzo & Bakirov
/// 2007 (distance correlation), for which the centring of a matrix needs only its row sums. Sums in
/// pairs: Higham 1993, "The accuracy of floating point summation".
///
/// ```
/// use burn::tensor::Tensor;
/// use inscape::{Device, ops::{PairForm, PairTile, pair_sums}};
/// let cpu = Device::cpu();
/// let z = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], cpu.tensor());
/// let squares = (z.clone() * z.clone()).sum_dim(1).reshape([3]);
/// let side = PairTile {
///     products: z.clone().matmul(z.transpose()),
///     row_squares: squares.clone(),
///     column_squares: squares,
/// };
/// let sums = pair_sums([&side, &side], [PairForm::Dot, PairForm::SquaredEuclidean], [0, 0]);
/// let by_row = sums.by_row.into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(by_row, [15.0, 3.0, 10.0, 20.0, 2.0, 10.0, 0.0, 0.0, 0.0]);
/// let by_column = sums.by_column.into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(by_column, [0.0, 0.0, 0.0, 5.0, 5.0, 15.0]);
/// ```
pub fn pair_sums(sides: [&PairTile; 2], forms: [PairForm; 2], place: [usize; 2]) -> PairSums {
    checked(sides, forms, place, <Dispatch as PairSumsOps>::pair_sums)
}

/// [`pair_sums`] in plain tensor operations: slow, and the meaning that the other forms must match.
pub fn pair_sums_reference(
    sides: [&PairTile; 2],
    forms: [PairForm; 2],
    place: [usize; 2],
) -> PairSums {
    checked(sides, forms, place, reference::<Dispatch>)
}

type Floats = FloatTensor<Dispatch>;
/// Sums by row and by column.
type Pair<B> = (FloatTensor<B>, FloatTensor<B>);

fn checked(
    [a, b]: [&PairTile; 2],
    forms: [PairForm; 2],
    [row0, col0]: [usize; 2],
    run: fn(Floats, Floats, Floats, Pairs) -> (Floats, Floats),
) -> PairSums {
    let [r, c] = a.products.dims();
    for side in [a, b] {
        let (products, rows, columns) = side.dims();
        assert!(
            products == [r, c] && rows == r && columns == c && r.max(c) < 1 << 31,
            "pair_sums: {products:?} products of {rows} rows and {columns} columns beside [{r}, {c}]"
        );
    }
    if r * c == 0 {
        let on = (&a.products.device(), a.products.dtype());
        let (by_row, by_column) = (Tensor::zeros([r, 3], on), Tensor::zeros([c, 2], on));
        return PairSums { by_row, by_column };
    }
    let offset = (row0 as i64 - col0 as i64).clamp(-(r as i64), c as i64);
    let squares = [a, b].map(|side| [side.row_squares.clone(), side.column_squares.clone()]);
    let squares = Tensor::cat(squares.concat(), 0).into_dispatch();
    let [a, b] = [a, b].map(|side| side.products.clone().into_dispatch());
    let (by_row, by_column) = run(a, b, squares, Pairs { forms, offset });
    PairSums {
        by_row: Tensor::from_dispatch(by_row),
        by_column: Tensor::from_dispatch(by_column),
    }
}

impl PairTile {
    pub(super) fn dims(&self) -> ([usize; 2], usize, usize) {
        let ([rows], [columns]) = (self.row_squares.dims(), self.column_squares.dims());
        (self.products.dims(), rows, columns)
    }
}

/// The form of either side, and which entries of a tile count.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    forms: [PairForm; 2],
    /// Those with `j > i + offset` count: from `-r` (all) to `c` (none).
    offset: i64,
}

/// The backends' side of [`pair_sums`].
#[backend_extension(Flex, Cube)]
pub trait PairSumsOps: Backend {
    /// Sums by row `[r, 3]` and by column `[c, 2]` of two tiles `[r, c]`, neither side 0; the squared
    /// lengths `[2 (r + c)]` are those of one side's rows and columns and then those of the other.
    fn pair_sums(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        squares: FloatTensor<Self>,
        pairs: Pairs,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::<Self>(a, b, squares, pairs)
    }
}

fn reference<B: Backend>(
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    squares: FloatTensor<B>,
    pairs: Pairs,
) -> Pair<B> {
    let (r, c) = (a.shape()[0], a.shape()[1]);
    let part = |start: usize, length: usize| {
        let range = burn::tensor::Slice::from(start..start + length);
        B::float_slice(squares.clone(), &[range])
    };
    let place = |n: usize, first: i64, shape: [usize; 2]| {
        let places = B::int_arange(first..first + n as i64, &a.device(), IntDType::I32);
        B::int_expand(B::int_reshape(places, Shape::new(shape)), a.shape())
    };
    let (rows, columns) = (place(r, pairs.offset, [r, 1]), place(c, 0, [1, c]));
    let skipped = B::bool_not(B::int_greater(columns, rows, bools::<B>(&a)));
    let [f, g] = [(a.clone(), 0), (b, 1)].map(|(p, side)| {
        let first = side * (r + c);
        let formed = formed::<B>(p, part(first, r), part(first + r, c), pairs.forms[side]);
        B::float_mask_fill(formed, skipped.clone(), 0.0.into())
    });
    let over_columns = |x: FloatTensor<B>| B::float_sum_dim(x, 1);
    let over_rows =
        |x: FloatTensor<B>| B::float_reshape(B::float_sum_dim(x, 0), Shape::new([c, 1]));
    let product = B::float_mul(f.clone(), g.clone());
    let by_row = [product, f.clone(), g.clone()].map(over_columns);
    let by_column = [f, g].map(over_rows);
    (
        B::float_cat(by_row.to_vec(), 1),
        B::float_cat(by_column.to_vec(), 1),
    )
}

/// Products `[r, c]` in their form, with the squared lengths of rows and columns.
fn formed<B: Backend>(
    p: FloatTensor<B>,
    rows: FloatTensor<B>,
    columns: FloatTensor<B>,
    form: PairForm,
) -> FloatTensor<B> {
    match form {
        PairForm::Dot => return p,
        PairForm::OneMinus => return B::float_add_scalar(B::float_neg(p), 1.0.into()),
        _ => (),
    }
    let both = B::float_add(along_rows::<B>(rows, &p), under_rows::<B>(columns, &p));
    let d = B::float_sub(both, B::float_mul_scalar(p, 2.0.into()));
    let squared = B::float_mask_fill(d.clone(), below::<B>(d, 0.0), 0.0.into());
    match form {
        PairForm::Euclidean => B::float_sqrt(squared),
        PairForm::Rbf { gamma } => B::float_exp(B::float_mul_scalar(squared, (-gamma).into())),
        _ => squared,
    }
}

impl PairSumsOps for CubeBackend {
    fn pair_sums(a: CubeTensor, b: CubeTensor, squares: CubeTensor, pairs: Pairs) -> Pair<Self> {
        match cube::takes_wgsl(&[&a, &b, &squares]) {
            true => pair_sums_wgsl([a, b, squares].map(into_contiguous), pairs),
            false => reference::<Self>(a, b, squares, pairs),
        }
    }
}

/// Rows, and columns, of a block: `SIDE` in the shader.
const SIDE: usize = 64;

fn pair_sums_wgsl([a, b, squares]: [CubeTensor; 3], pairs: Pairs) -> (CubeTensor, CubeTensor) {
    let [r, c] = cube::dims(&a);
    let (down, across) = (r.div_ceil(SIDE), c.div_ceil(SIDE));
    let by_row = cube::output(&a, [across * r, 3], DType::F32);
    let by_column = cube::output(&a, [down * c, 2], DType::F32);
    cube::assert_addressable("pair_sums", &[&a, &by_row, &by_column]);
    let [of_a, of_b] = pairs.forms.map(PairForm::coded);
    let bits = |gamma: f32| gamma.to_bits() as usize;
    let sizes = [
        r,
        c,
        pairs.offset as u32 as usize,
        bits(of_a.1),
        bits(of_b.1),
    ];
    let buffers = vec![
        a.handle.clone(),
        b.handle,
        squares.handle,
        cube::sizes(&a, &sizes),
        by_row.handle.clone(),
        by_column.handle.clone(),
    ];
    let kernel = wgsl::PAIR_SUMS.kernel(&[("FORM_A", of_a.0), ("FORM_B", of_b.0)]);
    wgsl::launch(&a.client, kernel, (down * across) as u64, buffers);
    (fold(by_row, r), fold(by_column, c))
}

/// Sums of a chunk of rows: `RUN` in the shader.
const RUN: usize = 16;

/// The sum of the matrices `[n, m]` that stand below one another in `parts`, added in pairs.
fn fold(mut parts: CubeTensor, n: usize) -> CubeTensor {
    loop {
        let [rows, m] = cube::dims(&parts);
        let count = rows / n;
        if count == 1 {
            return parts;
        }
        let sums = cube::output(&parts, [count.div_ceil(RUN) * n, m], DType::F32);
        let groups = sums.shape().num_elements().div_ceil(256) as u64;
        let sizes = cube::sizes(&parts, &[count, n * m]);
        let buffers = vec![parts.handle, sizes, sums.handle.clone()];
        wgsl::launch(&sums.client, wgsl::FOLD.kernel(&[]), groups, buffers);
        parts = sums;
    }
}

impl PairForm {
    /// The form's number in the shader, and its gamma.
    fn coded(self) -> (u32, f32) {
        match self {
            Self::Dot => (0, 0.0),
            Self::OneMinus => (1, 0.0),
            Self::SquaredEuclidean => (2, 0.0),
            Self::Euclidean => (3, 0.0),
            Self::Rbf { gamma } => (4, gamma as f32),
        }
    }
}

impl PairSumsOps for Flex {
    fn pair_sums(a: FlexTensor, b: FlexTensor, squares: FlexTensor, pairs: Pairs) -> Pair<Self> {
        let [a, b, squares] = [a, b, squares].map(|x| x.to_contiguous());
        if !all_f32(&[&a, &b, &squares]) {
            return reference::<Self>(a, b, squares, pairs);
        }
        let [r, c] = dims(&a);
        let side = |products, side: usize| {
            let squares = &floats(&squares)[side * (r + c)..][..r + c];
            let (rows, columns) = squares.split_at(r);
            HostSide {
                products: floats(products),
                rows,
                columns,
                form: pairs.forms[side],
            }
        };
        let (by_row, by_column) = sums([&side(&a, 0), &side(&b, 1)], pairs.offset, [r, c]);
        (matrix(by_row, r, 3), matrix(by_column, c, 2))
    }
}
