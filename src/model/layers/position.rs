use burn::tensor::{Device, Tensor, TensorData};

/// Which two coordinates of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `i` with `i + d_head / 2`: Hugging Face's layout.
    Half,
    /// `2i` with `2i + 1`: the paper's layout, kept by GGUF and some small models.
    Adjacent,
}

/// Rotary position embedding (Su et al. 2021, eq. 34) over a context.
#[derive(Clone, Debug)]
pub struct Rope {
    cos: Tensor<4>,
    sin: Tensor<4>,
    pairs: RopePairs,
}

impl Rope {
    /// Tables for positions `0..pos`, computed in f64 and kept as `[1, pos, 1, d_head / 2]`.
    pub fn new(pos: usize, d_head: usize, theta: f64, pairs: RopePairs, device: &Device) -> Self {
        let half = d_head / 2;
        let angle = |p: usize, i: usize| p as f64 * theta.powf(-2.0 * i as f64 / d_head as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..pos * half)
                .map(|n| f(angle(n / half, n % half)) as f32)
                .collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, pos, 1, half]), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
            pairs,
        }
    }

    /// Rotates `x` `[batch, pos, head, d_head]` by its position; pos may be shorter than the table.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, pos, heads, d_head] = x.dims();
        let half = d_head / 2;
        let cos = self.cos.clone().slice([0..1, 0..pos]);
        let sin = self.sin.clone().slice([0..1, 0..pos]);
        match self.pairs {
            RopePairs::Half => {
                let a = x.clone().slice([0..batch, 0..pos, 0..heads, 0..half]);
                let b = x.slice([0..batch, 0..pos, 0..heads, half..d_head]);
                let (a, b) = rotate(a, b, cos, sin);
                Tensor::cat(vec![a, b], 3)
            }
            RopePairs::Adjacent => {
                let x = x.reshape([batch, pos, heads * half, 2]);
                let part = |i: usize| {
                    x.clone()
                        .slice([0..batch, 0..pos, 0..heads * half, i..i + 1])
                        .reshape([batch, pos, heads, half])
                };
                let (a, b) = rotate(part(0), part(1), cos, sin);
                Tensor::stack::<5>(vec![a, b], 4).reshape([batch, pos, heads, d_head])
            }
        }
    }
}

fn rotate(a: Tensor<4>, b: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    (first, b * cos + a * sin)
}
