use burn::tensor::{Shape, Tensor};

/// A tensor at a hook point: rank 3 (`[batch, pos, width]`) or rank 4
/// (`[batch, pos, head, d_head]`, `[batch, head, query, key]`).
#[derive(Clone, Debug)]
pub enum Activation {
    /// `[batch, pos, width]`.
    R3(Tensor<3>),
    /// `[batch, pos, head, d_head]` or `[batch, head, query, key]`.
    R4(Tensor<4>),
}

impl Activation {
    /// The shape, outermost first.
    pub fn shape(&self) -> Shape {
        match self {
            Self::R3(x) => x.shape(),
            Self::R4(x) => x.shape(),
        }
    }

    /// The tensor as rank 3.
    ///
    /// # Panics
    /// If the activation has another rank.
    pub fn r3(self) -> Tensor<3> {
        match self {
            Self::R3(x) => x,
            Self::R4(x) => panic!("activation: rank 3 wanted, shape is {:?}", x.dims()),
        }
    }

    /// The tensor as rank 4.
    ///
    /// # Panics
    /// If the activation has another rank.
    pub fn r4(self) -> Tensor<4> {
        match self {
            Self::R4(x) => x,
            Self::R3(x) => panic!("activation: rank 4 wanted, shape is {:?}", x.dims()),
        }
    }

    /// One row a position: `[batch, pos, a, b]` becomes `[batch, pos, a * b]`; rank 3 stays.
    /// No copy where the layout is contiguous.
    pub fn rows(self) -> Tensor<3> {
        match self {
            Self::R3(x) => x,
            Self::R4(x) => {
                let [b, p, h, d] = x.dims();
                x.reshape([b, p, h * d])
            }
        }
    }
}

/// Ranks that a hook point can have.
pub trait Rank: Sized {
    /// Wraps the tensor.
    fn wrap(self) -> Activation;
    /// Takes it back out. Panics on another rank.
    fn unwrap(activation: Activation) -> Self;
}

impl Rank for Tensor<3> {
    fn wrap(self) -> Activation {
        Activation::R3(self)
    }
    fn unwrap(activation: Activation) -> Self {
        activation.r3()
    }
}

impl Rank for Tensor<4> {
    fn wrap(self) -> Activation {
        Activation::R4(self)
    }
    fn unwrap(activation: Activation) -> Self {
        activation.r4()
    }
}
