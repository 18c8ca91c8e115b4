//! Values where they lie, if that is in this memory.

use std::ops::Deref;

use burn::backend::Flex;
use burn::tensor::{Element, Tensor};
use burn_flex::FlexTensor;
use bytemuck::Pod;

use super::{Error, read};

/// The values of a tensor in row-major order: those that the CPU backend holds, or read back.
#[derive(Clone, Debug)]
pub(crate) enum View<E> {
    Here(FlexTensor),
    Read(Vec<E>),
}

/// [`read`] without a copy where `x` holds values of type `E` in this memory, one after another.
pub(crate) async fn view<E: Element + Pod, const D: usize>(
    x: &Tensor<D>,
) -> Result<View<E>, Error> {
    match x.clone().try_into_primitive::<Flex>() {
        Ok(here) if here.as_slice::<E>().is_some() => Ok(View::Here(here)),
        _ => Ok(View::Read(read(x.clone()).await?)),
    }
}

impl<E: Element + Pod> View<E> {
    /// The values to be changed; a copy first if they are the tensor's.
    pub(crate) fn to_mut(&mut self) -> &mut Vec<E> {
        if let Self::Here(_) = self {
            *self = Self::Read(self.to_vec());
        }
        match self {
            Self::Read(values) => values,
            Self::Here(_) => unreachable!("copied above"),
        }
    }

    pub(crate) fn into_vec(mut self) -> Vec<E> {
        std::mem::take(self.to_mut())
    }
}

impl<E: Element + Pod> Deref for View<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        match self {
            Self::Read(values) => values,
            Self::Here(tensor) => tensor
                .as_slice()
                .unwrap_or_else(|| unreachable!("seen when the view was made")),
        }
    }
}

impl<E> From<Vec<E>> for View<E> {
    fn from(values: Vec<E>) -> Self {
        Self::Read(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, block_on};

    #[test]
    fn a_view_borrows_where_it_can_and_leaves_the_tensor_alone() {
        let cpu = Device::cpu();
        let x = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], cpu.tensor());
        let mut own: View<f32> = block_on(view(&x)).unwrap();
        assert!(matches!(own, View::Here(_)));
        own.to_mut()[0] = 9.0;
        assert_eq!(own.into_vec(), [9.0, 2.0, 3.0, 4.0]);
        let turned: View<f32> = block_on(view(&x.clone().transpose())).unwrap();
        assert!(matches!(turned, View::Read(_)));
        assert_eq!(turned[..], [1.0, 3.0, 2.0, 4.0]);
        let second: View<f32> = block_on(view(&x.clone().narrow(0, 1, 1))).unwrap();
        assert_eq!(second[..], [3.0, 4.0]);
        let wide: View<f64> = block_on(view(&x)).unwrap();
        assert!(matches!(wide, View::Read(_)));
        assert_eq!(wide[..], [1.0, 2.0, 3.0, 4.0]);
    }
}
