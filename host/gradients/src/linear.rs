//! `x w^T + bias`.

use candle_core::{DType, Result, Tensor};

use crate::{
    OpError,
    product::{column_sums, product, product_f32},
    recorded::record,
};

const OP: &str = "linear";

/// `x weight^T + bias`: `x [rows, in]` in f32 or bf16, `weight [out, in]` and `bias [out]` in f32 (masters) or `x`'s
/// type. The product is computed in `x`'s type and accumulated in f32; the output is in `x`'s type, each gradient in
/// its input's. Gradients are computed only for the inputs that are tracked: a frozen weight costs none.
///
/// # Errors
/// Shapes that differ from these, other element types.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let fits = match (x.dims(), weight.dims(), bias.map(Tensor::dims)) {
        (&[_, inner], &[_, width], None) => inner == width,
        (&[_, inner], &[out, width], Some(bias)) => inner == width && bias == [out],
        _ => false,
    };
    if !fits {
        let found: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
        return Err(OpError::inputs(OP, "x [rows, in], weight [out, in] and bias [out]", &found).into());
    }
    let dtype = x.dtype();
    let input = x.detach().contiguous()?;
    let matrix = weight.detach().to_dtype(dtype)?;
    let (for_x, for_weight, weight_dtype) = (x.track_op(), weight.track_op(), weight.dtype());
    let mut output = product(&input, &matrix.t()?)?;
    if let Some(bias) = bias {
        output = output.broadcast_add(&bias.detach().to_dtype(dtype)?)?;
    }
    let gradients = move |gradient: &Tensor| -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = for_x.then(|| product(gradient, &matrix)).transpose()?;
        let dweight = for_weight.then(|| match weight_dtype {
            DType::F32 => product_f32(&gradient.t()?, &input),
            _ => product(&gradient.t()?, &input)?.to_dtype(weight_dtype),
        });
        Ok((dx, dweight.transpose()?))
    };
    match bias {
        None => record(OP, output, [x, weight], move |gradient, _| {
            let (dx, dweight) = gradients(gradient)?;
            Ok([dx, dweight])
        }),
        Some(bias) => {
            let (for_bias, bias_dtype) = (bias.track_op(), bias.dtype());
            record(OP, output, [x, weight, bias], move |gradient, _| {
                let (dx, dweight) = gradients(gradient)?;
                let dbias = for_bias.then(|| column_sums(gradient)?.to_dtype(bias_dtype));
                Ok([dx, dweight, dbias.transpose()?])
            })
        }
    }
}
