//! Values and gradients on the device against those on the CPU.

use candle_core::{DType, Device, Result, Tensor, Var};
use modularbase_gradients as g;

use crate::numbers::Numbers;

/// Largest difference over the largest magnitude: of outputs and gradients in f32, and in bf16.
const F32: (f32, f32) = (1e-4, 5e-4);
const BF16: (f32, f32) = (0.02, 0.04);

/// An operator: the inputs, and then what it needs besides (ids, tables), on the inputs' device.
type Operator<'a> = &'a dyn Fn(&[Tensor], &[Tensor]) -> Result<Tensor>;

struct Table<'a> {
    device: &'a Device,
    agreed: bool,
}

/// Prints a line an operator and shape; whether all of them agree.
pub fn table(device: &Device) -> Result<bool> {
    println!(
        "{:44} {:>10} {:>10} {:>10} {:>10}",
        "against the CPU in f32", "f32", "gradients", "bf16", "gradients"
    );
    let mut table = Table { device, agreed: true };
    table.norms()?;
    table.rotations()?;
    table.attention()?;
    table.elementwise()?;
    table.products()?;
    table.losses()?;
    table.steps()?;
    Ok(table.agreed)
}

impl Table<'_> {
    /// `masters` are the inputs that stay in f32.
    fn check(
        &mut self,
        name: &str,
        inputs: &[Tensor],
        extra: &[Tensor],
        masters: &[usize],
        op: Operator,
    ) -> Result<()> {
        let cpu = Device::Cpu;
        let (exact, exact_gradients) = run(op, inputs, extra, &cpu, DType::F32, masters)?;
        let mut columns = Vec::new();
        for (dtype, (for_output, for_gradients)) in [(DType::F32, F32), (DType::BF16, BF16)] {
            let (output, gradients) = run(op, inputs, extra, self.device, dtype, masters)?;
            let off = difference(&output, &exact)?;
            let mut worst = 0f32;
            for (gradient, exact) in gradients.iter().zip(&exact_gradients) {
                worst = worst.max(difference(gradient, exact)?);
            }
            // Not `off > ..`: a NaN disagrees too.
            let agrees = off <= for_output && worst <= for_gradients;
            self.agreed &= agrees;
            columns.push(format!("{off:>10.1e} {worst:>10.1e}{}", if agrees { "" } else { " DISAGREES" }));
        }
        println!("{name:44} {}", columns.join(" "));
        Ok(())
    }

    fn norms(&mut self) -> Result<()> {
        for (rows, width) in [(1024, 576), (77, 131), (5, 4096), (3, 8)] {
            let mut n = Numbers::new(rows as u64);
            let inputs = [n.tensor(&[rows, width], 2.0)?, n.tensor(&[width], 1.0)?, n.tensor(&[width], 1.0)?];
            let shape = format!("{rows}x{width}");
            self.check(&format!("rms_norm {shape}"), &inputs[..2], &[], &[1], &|x, _| {
                g::rms_norm(&x[0], &x[1], 1e-5)
            })?;
            self.check(&format!("layer_norm {shape}"), &inputs, &[], &[1, 2], &|x, _| {
                g::layer_norm(&x[0], &x[1], &x[2], 1e-5)
            })?;
        }
        Ok(())
    }

    fn rotations(&mut self) -> Result<()> {
        for (sequences, length, heads, d) in [(4, 128, 9, 64), (3, 37, 5, 20), (2, 50, 3, 128)] {
            let frequencies: Vec<f32> =
                (0..d / 2).map(|pair| 1e4f32.powf(-2.0 * pair as f32 / d as f32)).collect();
            let inputs = [Numbers::new(7).tensor(&[sequences * length, heads * d], 1.0)?];
            for layout in [g::RopeLayout::Half, g::RopeLayout::Interleaved] {
                let name = format!("rope {layout:?} {sequences}x{length}, {heads} of {d}");
                self.check(&name, &inputs, &[], &[], &|x, _| {
                    g::rope(&x[0], &g::RopeTable::new(&frequencies, length, x[0].device())?, layout, d)
                })?;
            }
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<()> {
        let shapes = [
            (2, 512, 9, 3, 64),
            (3, 100, 6, 2, 64),
            (1, 1000, 4, 1, 64),
            (2, 65, 4, 4, 32),
            (2, 130, 2, 1, 128),
            (2, 70, 3, 3, 96),
            (2, 90, 4, 2, 48),
            (3, 33, 2, 1, 8),
            (4, 1, 2, 2, 64),
            (2, 60, 2, 2, 20),
            (1, 40, 2, 1, 160),
        ];
        for (sequences, length, heads, kv_heads, d) in shapes {
            let mut n = Numbers::new(length as u64);
            let rows = sequences * length;
            let inputs = [
                n.tensor(&[rows, heads * d], 2.0)?,
                n.tensor(&[rows, kv_heads * d], 2.0)?,
                n.tensor(&[rows, kv_heads * d], 1.0)?,
            ];
            for causal in [true, false] {
                let name =
                    format!("attention {sequences}x{length}, {heads}/{kv_heads} of {d}, causal {causal}");
                self.check(&name, &inputs, &[], &[], &|x, _| {
                    g::attention(&x[0], &x[1], &x[2], heads, kv_heads, length, causal)
                })?;
            }
        }
        Ok(())
    }

    fn elementwise(&mut self) -> Result<()> {
        for (rows, width) in [(512, 1536), (33, 77), (3, 1)] {
            let mut n = Numbers::new(width as u64);
            let inputs = [n.tensor(&[rows, width], 4.0)?, n.tensor(&[rows, width], 1.0)?];
            let shape = format!("{rows}x{width}");
            let one = &inputs[..1];
            self.check(&format!("softmax {shape}"), one, &[], &[], &|x, _| g::softmax(&x[0]))?;
            self.check(&format!("silu {shape}"), one, &[], &[], &|x, _| g::silu(&x[0]))?;
            self.check(&format!("gelu {shape}"), one, &[], &[], &|x, _| g::gelu(&x[0]))?;
            self.check(&format!("silu_mul {shape}"), &inputs, &[], &[], &|x, _| g::silu_mul(&x[0], &x[1]))?;
            self.check(&format!("add {shape}"), &inputs, &[], &[], &|x, _| g::add(&x[0], &x[1]))?;
            self.check(&format!("mul {shape}"), &inputs, &[], &[], &|x, _| g::mul(&x[0], &x[1]))?;
            self.check(&format!("scale {shape}"), one, &[], &[], &|x, _| g::scale(&x[0], -0.3))?;
            let pair = [inputs[0].clone(), n.tensor(&[width], 1.0)?];
            self.check(&format!("mul by a vector {shape}"), &pair, &[], &[1], &|x, _| g::mul(&x[0], &x[1]))?;
            self.check(&format!("concat {shape}"), &inputs, &[], &[], &|x, _| g::concat(&[&x[0], &x[1]]))?;
            let count = width.div_ceil(2);
            self.check(&format!("columns {shape}"), one, &[], &[], &|x, _| {
                g::columns(&x[0], width - count, count)
            })?;
        }
        Ok(())
    }

    fn products(&mut self) -> Result<()> {
        for (rows, inner, out) in [(512, 576, 1536), (65, 33, 77), (1, 8, 3)] {
            let mut n = Numbers::new(out as u64);
            let inputs =
                [n.tensor(&[rows, inner], 1.0)?, n.tensor(&[out, inner], 1.0)?, n.tensor(&[out], 1.0)?];
            let shape = format!("{rows}x{inner}x{out}");
            self.check(&format!("linear {shape}"), &inputs[..2], &[], &[1], &|x, _| {
                g::linear(&x[0], &x[1], None)
            })?;
            self.check(&format!("linear with a bias {shape}"), &inputs, &[], &[1, 2], &|x, _| {
                g::linear(&x[0], &x[1], Some(&x[2]))
            })?;
            let ids = [n.ids(rows, out)?];
            self.check(
                &format!("embedding {rows} of {out}x{inner}"),
                &inputs[1..2],
                &ids,
                &[],
                &|x, ids| g::embedding(&ids[0], &x[0]),
            )?;
        }
        Ok(())
    }

    fn losses(&mut self) -> Result<()> {
        for (rows, width, vocabulary, chunk) in [(200, 576, 5000, 64), (65, 40, 333, 100), (7, 16, 8, 1)] {
            let mut n = Numbers::new(rows as u64);
            let inputs = [n.tensor(&[rows, width], 0.5)?, n.tensor(&[vocabulary, width], 0.5)?];
            let mask: Vec<f32> = (0..rows).map(|row| if row % 5 == 0 { 0.0 } else { 0.5 }).collect();
            let extra = [n.ids(rows, vocabulary)?, Tensor::from_vec(mask, rows, &Device::Cpu)?];
            let shape = format!("{rows}x{width}x{vocabulary}");
            self.check(&format!("cross_entropy {shape}"), &inputs, &extra, &[1], &|x, extra| {
                g::cross_entropy(&x[0], &x[1], &extra[0], &extra[1], chunk)
            })?;
            let taught =
                [extra[1].clone(), n.tensor(&[rows, width], 0.5)?, n.tensor(&[vocabulary, width], 0.5)?];
            self.check(&format!("distillation {shape}"), &inputs, &taught, &[1], &|x, extra| {
                let teacher = extra[1].to_dtype(x[0].dtype())?;
                g::distillation(&x[0], &x[1], &teacher, &extra[2], &extra[0], chunk)
            })?;
            let found = |device: &Device, dtype| -> Result<Tensor> {
                let at = |x: &Tensor| x.to_device(device)?.to_dtype(dtype);
                let targets = extra[0].to_device(device)?;
                g::cross_entropy_rows(&at(&inputs[0])?, &at(&inputs[1])?, &targets, chunk)
            };
            let exact = found(&Device::Cpu, DType::F32)?;
            let off = difference(&found(self.device, DType::F32)?, &exact)?;
            let half = difference(&found(self.device, DType::BF16)?, &exact)?;
            let agrees = off < F32.0 && half < BF16.0;
            self.agreed &= agrees;
            let verdict = if agrees { "" } else { " DISAGREES" };
            println!(
                "{:44} {off:>10.1e} {:>10} {half:>10.1e}{verdict}",
                format!("cross_entropy_rows {shape}"),
                ""
            );
        }
        Ok(())
    }

    /// Five steps of AdamW, clipped and not.
    fn steps(&mut self) -> Result<()> {
        let steps = |device: &Device| -> Result<(Tensor, Tensor)> {
            let mut n = Numbers::new(3);
            let var = Var::from_tensor(&n.tensor(&[300, 77], 1.0)?.to_device(device)?)?;
            let vector = Var::from_tensor(&n.tensor(&[41], 1.0)?.to_device(device)?)?;
            let parameters =
                vec![g::Parameter::new("matrix", var.clone()), g::Parameter::new("vector", vector.clone())];
            let mut optimizer = g::AdamW::new(parameters, g::AdamWConfig::default())?;
            let mut norms = Vec::new();
            for step in 0..5 {
                let size = if step % 2 == 0 { 1.0 } else { 1e-3 };
                let (a, b) = (n.tensor(&[300, 77], size)?, n.tensor(&[41], size)?);
                let loss = ((var.as_tensor() * a.to_device(device)?)?.sum_all()?
                    + (vector.as_tensor() * b.to_device(device)?)?.sum_all()?)?;
                norms.push(optimizer.step(&loss.backward()?, 0.01, Some(1.0))?.to_device(&Device::Cpu)?);
            }
            let all = Tensor::cat(&[var.flatten_all()?, vector.flatten_all()?], 0)?;
            Ok((all, Tensor::stack(&norms, 0)?))
        };
        let ((weights, norms), (exact, exact_norms)) = (steps(self.device)?, steps(&Device::Cpu)?);
        let (off, norm_off) = (difference(&weights, &exact)?, difference(&norms, &exact_norms)?);
        let agrees = off < 1e-5 && norm_off < 1e-5;
        self.agreed &= agrees;
        println!(
            "{:44} {off:>10.1e} {norm_off:>10.1e}{}",
            "adamw, and its norms",
            if agrees { "" } else { " DISAGREES" }
        );
        Ok(())
    }
}

fn run(
    op: Operator,
    inputs: &[Tensor],
    extra: &[Tensor],
    device: &Device,
    dtype: DType,
    masters: &[usize],
) -> Result<(Tensor, Vec<Tensor>)> {
    let mut vars = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let dtype = if masters.contains(&index) { DType::F32 } else { dtype };
        vars.push(Var::from_tensor(&input.to_device(device)?.to_dtype(dtype)?)?);
    }
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let extra: Vec<Tensor> = extra.iter().map(|tensor| tensor.to_device(device)).collect::<Result<_>>()?;
    let output = op(&tensors, &extra)?;
    let outgoing =
        Numbers::new(99).tensor(output.dims(), 1.0)?.to_device(device)?.to_dtype(output.dtype())?;
    let gradients = (&output * outgoing)?.sum_all()?.backward()?;
    let mut found = Vec::new();
    for var in &vars {
        found.push(match gradients.get(var) {
            Some(gradient) => gradient.clone(),
            None => var.zeros_like()?,
        });
    }
    Ok((output.detach(), found))
}

/// The largest difference over the largest magnitude of `right`; NaN if anything is.
fn difference(left: &Tensor, right: &Tensor) -> Result<f32> {
    let values = |tensor: &Tensor| -> Result<Vec<f32>> {
        tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
    };
    let (left, right) = (values(left)?, values(right)?);
    let size = right.iter().map(|value| value.abs()).fold(1e-3, f32::max);
    let mut worst = 0f32;
    for (a, b) in left.iter().zip(&right) {
        let off = (a - b).abs();
        if off.is_nan() {
            return Ok(f32::NAN);
        }
        worst = worst.max(off);
    }
    Ok(worst / size)
}
