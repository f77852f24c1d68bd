//! Weights: as a file holds them, and as a device does.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use candle_core::{DType, Device, Tensor, quantized::QMatMul};
use modularbase_kernels::Matrix;

use crate::{BaseFile, CoreError, StoredDtype};

/// A tensor read from a file, little-endian.
#[derive(Debug, Clone)]
pub struct StoredTensor<'a> {
    /// Canonical name, for errors.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Number format of `bytes`.
    pub dtype: StoredDtype,
    /// The values as stored, rows in canonical order.
    pub bytes: Cow<'a, [u8]>,
}

impl StoredTensor<'static> {
    /// Reads a base's tensor by its canonical name.
    ///
    /// # Errors
    /// No such tensor, or the file can't be read.
    pub fn of_base(file: &BaseFile, name: &str) -> Result<Self, CoreError> {
        let info = file.tensor(name)?;
        Ok(Self {
            name: name.to_owned(),
            shape: info.shape.clone(),
            dtype: info.kind,
            bytes: Cow::Owned(file.read_ordered_bytes(name)?),
        })
    }
}

impl StoredTensor<'_> {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// `(rows, columns)` of a matrix.
    ///
    /// # Errors
    /// Another number of dimensions.
    pub fn dims2(&self) -> Result<(usize, usize), CoreError> {
        match *self.shape {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(CoreError::weight(
                &self.name,
                format!("should be a matrix, found dimensions {:?}", self.shape),
            )),
        }
    }

    /// All values in f32.
    ///
    /// # Errors
    /// Bytes that are not what shape and format ask for.
    pub fn to_f32(&self) -> Result<Vec<f32>, CoreError> {
        let columns = self.shape.last().copied().unwrap_or(0);
        let rows = self.shape.iter().rev().skip(1).product::<usize>();
        let expected = self.dtype.row_bytes(columns).and_then(|bytes| bytes.checked_mul(rows));
        if expected != Some(self.bytes.len()) {
            let expected = expected.map_or("whole blocks".to_owned(), |bytes| format!("{bytes} bytes"));
            let found = self.bytes.len();
            return Err(CoreError::weight(
                &self.name,
                format!("{:?} should hold {expected} of {}, found {found} bytes", self.shape, self.dtype),
            ));
        }
        let mut values = Vec::with_capacity(self.elements());
        self.dtype
            .append_f32(&self.bytes, &mut values)
            .map_err(|reason| CoreError::weight(&self.name, format!("can't be converted: {reason}")))?;
        Ok(values)
    }
}

/// A weight on a device, shared by every plan that uses it.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Packed for the CPU kernels, `[rows, columns]`.
    CpuMatrix(Arc<Matrix>),
    /// f32 for the CPU kernels.
    CpuVector(Arc<[f32]>),
    /// On a candle device, `[rows, columns]`.
    TensorMatrix(Arc<TensorMatrix>),
    /// f32 on a candle device.
    TensorVector(Tensor),
}

/// A matrix that candle multiplies with.
#[derive(Debug)]
pub struct TensorMatrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) product: QMatMul,
    /// The blocks in host memory once rows of a quantized table on a GPU were asked for, as an embedding's are.
    host_copy: OnceLock<Vec<u8>>,
}

impl TensorMatrix {
    pub(crate) fn new(rows: usize, columns: usize, product: QMatMul) -> Self {
        Self { rows, columns, product, host_copy: OnceLock::new() }
    }

    fn bytes(&self) -> usize {
        match &self.product {
            QMatMul::QTensor(tensor) => tensor.storage_size_in_bytes(),
            QMatMul::Tensor(tensor) | QMatMul::TensorF16(tensor) => {
                tensor.elem_count() * tensor.dtype().size_in_bytes()
            }
        }
    }

    /// All rows in f32, `[rows, columns]`.
    pub(crate) fn dequantized(&self) -> Result<Tensor, CoreError> {
        Ok(match &self.product {
            QMatMul::QTensor(tensor) => tensor.dequantize(&tensor.device())?,
            QMatMul::Tensor(tensor) | QMatMul::TensorF16(tensor) => tensor.to_dtype(DType::F32)?,
        })
    }

    /// Some rows in f32, `[ids, columns]`. Of a quantized table only these are dequantized, on the host.
    pub(crate) fn gather(&self, ids: &[u32], device: &Device) -> Result<Tensor, CoreError> {
        let tensor = match &self.product {
            QMatMul::Tensor(table) | QMatMul::TensorF16(table) => {
                let rows = table.index_select(&Tensor::new(ids, device)?, 0)?;
                return Ok(rows.to_dtype(DType::F32)?);
            }
            QMatMul::QTensor(tensor) => tensor,
        };
        let dtype = StoredDtype::Ggml(tensor.dtype());
        let table: &[u8] = match self.host_copy.get() {
            Some(table) => table,
            None => match tensor.data()? {
                Cow::Borrowed(table) => table,
                Cow::Owned(table) => self.host_copy.get_or_init(|| table),
            },
        };
        let row_bytes = dtype.row_bytes(self.columns).unwrap_or(0);
        let mut values = Vec::with_capacity(ids.len() * self.columns);
        for &id in ids {
            dtype
                .append_f32(&table[id as usize * row_bytes..][..row_bytes], &mut values)
                .map_err(|reason| CoreError::weight("embedding", format!("can't be converted: {reason}")))?;
        }
        Ok(Tensor::from_vec(values, (ids.len(), self.columns), device)?)
    }
}

impl Weight {
    /// Dimensions, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::CpuMatrix(matrix) => vec![matrix.rows(), matrix.cols()],
            Self::CpuVector(vector) => vec![vector.len()],
            Self::TensorMatrix(matrix) => vec![matrix.rows, matrix.columns],
            Self::TensorVector(vector) => vector.dims().to_vec(),
        }
    }

    /// Bytes of device memory it owns. On CUDA candle pads matrices in blocks by 512 values, and its allocator rounds
    /// every piece up to 512 bytes: together under a thousandth of a base.
    pub fn bytes(&self) -> usize {
        match self {
            Self::CpuMatrix(matrix) => matrix.bytes(),
            Self::CpuVector(vector) => size_of_val::<[f32]>(vector),
            Self::TensorMatrix(matrix) => matrix.bytes(),
            Self::TensorVector(vector) => vector.elem_count() * vector.dtype().size_in_bytes(),
        }
    }
}
