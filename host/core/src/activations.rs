//! Hidden states and logits as they pass between plans: rows of f32, on the host or on a device.

use candle_core::Tensor;

use crate::CoreError;

/// `[rows, width]`, f32, one row a token.
#[derive(Debug, Clone)]
pub struct Activations {
    rows: usize,
    width: usize,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Host(Vec<f32>),
    Device(Tensor),
}

impl Activations {
    /// Rows in host memory; `values` holds `rows * width` numbers.
    ///
    /// # Errors
    /// Another number of values.
    pub fn from_host(rows: usize, width: usize, values: Vec<f32>) -> Result<Self, CoreError> {
        match values.len() == rows * width {
            true => Ok(Self { rows, width, data: Data::Host(values) }),
            false => {
                Err(CoreError::mismatch("activations", format!("{rows} x {width} values"), values.len()))
            }
        }
    }

    /// A tensor `[rows, width]`.
    ///
    /// # Errors
    /// A tensor that has not two dimensions.
    pub fn from_tensor(tensor: Tensor) -> Result<Self, CoreError> {
        let (rows, width) = tensor.dims2()?;
        Ok(Self { rows, width, data: Data::Device(tensor) })
    }

    /// Tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes allocated for the values.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Host(values) => values.capacity() * size_of::<f32>(),
            Data::Device(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        }
    }

    /// The values in host memory, row by row.
    ///
    /// # Errors
    /// The copy from the device fails.
    pub fn to_vec(&self) -> Result<Vec<f32>, CoreError> {
        Ok(match &self.data {
            Data::Host(values) => values.clone(),
            Data::Device(tensor) => tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?,
        })
    }

    /// The values where they are in host memory already.
    pub fn as_host(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Host(values) => Some(values),
            Data::Device(_) => None,
        }
    }

    /// The values where they are a tensor.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match &self.data {
            Data::Host(_) => None,
            Data::Device(tensor) => Some(tensor),
        }
    }

    /// Rows `first .. first + count`.
    ///
    /// # Errors
    /// Rows outside.
    pub fn slice_rows(&self, first: usize, count: usize) -> Result<Self, CoreError> {
        if first + count > self.rows {
            return Err(CoreError::mismatch("rows", format!("at most {}", self.rows), first + count));
        }
        let data = match &self.data {
            Data::Host(values) => {
                Data::Host(values[first * self.width..(first + count) * self.width].to_vec())
            }
            Data::Device(tensor) => Data::Device(tensor.narrow(0, first, count)?),
        };
        Ok(Self { rows: count, width: self.width, data })
    }

    /// Its rows in parts of `counts` rows, one after the other. A part that is everything is not copied.
    ///
    /// # Errors
    /// More rows asked for than there are.
    pub fn split_rows(self, counts: &[usize]) -> Result<Vec<Self>, CoreError> {
        if *counts == [self.rows] {
            return Ok(vec![self]);
        }
        let mut first = 0;
        let mut parts = Vec::with_capacity(counts.len());
        for &count in counts {
            parts.push(self.slice_rows(first, count)?);
            first += count;
        }
        Ok(parts)
    }

    /// One below the other. A single part is not copied.
    ///
    /// # Errors
    /// No parts, parts of different widths or on different devices.
    pub fn concat_rows(mut parts: Vec<Self>) -> Result<Self, CoreError> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let Some(first) = parts.first() else {
            return Err(CoreError::mismatch("joined activations", "at least one part", 0));
        };
        let (width, rows) = (first.width, parts.iter().map(|part| part.rows).sum());
        if let Some(other) = parts.iter().find(|part| part.width != width) {
            return Err(CoreError::mismatch("joined activations", width, other.width));
        }
        let data = match &first.data {
            Data::Host(_) => {
                let mut values = Vec::with_capacity(rows * width);
                for part in &parts {
                    values.extend_from_slice(part.host()?);
                }
                Data::Host(values)
            }
            Data::Device(_) => {
                let tensors = parts.iter().map(|part| part.tensor()).collect::<Result<Vec<_>, _>>()?;
                Data::Device(Tensor::cat(&tensors, 0)?)
            }
        };
        Ok(Self { rows, width, data })
    }

    /// The same with room for `rows` rows in all, so that [`Activations::append`] does not move them. Of no effect on a
    /// device.
    pub fn with_room(mut self, rows: usize) -> Self {
        if let Data::Host(values) = &mut self.data {
            values.reserve_exact((rows * self.width).saturating_sub(values.len()));
        }
        self
    }

    /// Appends the rows of `other`.
    ///
    /// # Errors
    /// As [`Activations::concat_rows`].
    pub fn append(&mut self, other: &Self) -> Result<(), CoreError> {
        if self.width != other.width {
            return Err(CoreError::mismatch("joined activations", self.width, other.width));
        }
        match &mut self.data {
            Data::Host(values) => {
                let more = other.host()?;
                values.reserve_exact(more.len());
                values.extend_from_slice(more);
            }
            Data::Device(tensor) => *tensor = Tensor::cat(&[&*tensor, other.tensor()?], 0)?,
        }
        self.rows += other.rows;
        Ok(())
    }

    /// `sum_i weight_i * part_i`. A single part of weight 1 is returned as it is, to the bit.
    ///
    /// # Errors
    /// As [`Activations::concat_rows`], and parts of different heights.
    pub fn weighted_sum(parts: Vec<(Self, f32)>) -> Result<Self, CoreError> {
        let mut parts = parts.into_iter();
        let Some((mut sum, weight)) = parts.next() else {
            return Err(CoreError::mismatch("mixture", "at least one expert", 0));
        };
        if weight != 1.0 {
            match &mut sum.data {
                Data::Host(values) => values.iter_mut().for_each(|value| *value *= weight),
                Data::Device(tensor) => *tensor = (&*tensor * f64::from(weight))?,
            }
        }
        for (part, weight) in parts {
            if (part.rows, part.width) != (sum.rows, sum.width) {
                let shape = |a: &Self| format!("[{}, {}]", a.rows, a.width);
                return Err(CoreError::mismatch("mixture", shape(&sum), shape(&part)));
            }
            match &mut sum.data {
                Data::Host(values) => {
                    for (value, more) in values.iter_mut().zip(part.host()?) {
                        *value += weight * more;
                    }
                }
                Data::Device(tensor) => *tensor = (&*tensor + (part.tensor()? * f64::from(weight))?)?,
            }
        }
        Ok(sum)
    }

    fn host(&self) -> Result<&[f32], CoreError> {
        self.as_host().ok_or_else(|| CoreError::mismatch("activations", "host memory", "a device tensor"))
    }

    fn tensor(&self) -> Result<&Tensor, CoreError> {
        self.as_tensor().ok_or_else(|| CoreError::mismatch("activations", "a device tensor", "host memory"))
    }
}
