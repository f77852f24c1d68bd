//! Writes small GGUF files, sound or not.

/// A metadata value of the kinds that the tests write.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// Rows first.
    pub shape: Vec<u64>,
    pub ggml_type: u32,
    pub bytes: Vec<u8>,
}

/// A GGUF file in pieces.
#[derive(Clone, Default)]
pub struct SmallGguf {
    pub meta: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

pub const HIDDEN: usize = 64;
pub const FEED_FORWARD: usize = 96;
pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;
pub const HEAD_DIM: usize = 16;
pub const LAYERS: usize = 2;

impl SmallGguf {
    /// A model with F32 norms, an F16 embedding and Q8_0 projections whose row `r` holds the value `r`.
    pub fn model(architecture: &str) -> Self {
        let mut gguf = Self::default();
        gguf.meta("general.architecture", Meta::Text(architecture.into()));
        for (key, value) in [
            ("block_count", LAYERS),
            ("context_length", 128),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", FEED_FORWARD),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
            ("rope.dimension_count", HEAD_DIM),
        ] {
            gguf.meta(&format!("{architecture}.{key}"), Meta::U32(value as u32));
        }
        gguf.meta(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-5));
        gguf.meta(&format!("{architecture}.rope.freq_base"), Meta::F32(10_000.0));
        let tokens = byte_tokens();
        let vocab = tokens.len();
        let mut types = vec![1; vocab];
        types[vocab - 1] = 3;
        gguf.meta("tokenizer.ggml.model", Meta::Text("gpt2".into()));
        gguf.meta("tokenizer.ggml.pre", Meta::Text("smollm".into()));
        gguf.meta("tokenizer.ggml.tokens", Meta::Texts(tokens));
        gguf.meta("tokenizer.ggml.token_type", Meta::I32s(types));
        gguf.meta("tokenizer.ggml.merges", Meta::Texts(vec!["Ġ t".into(), "h e".into(), "Ġt he".into()]));
        gguf.meta("tokenizer.ggml.eos_token_id", Meta::U32(vocab as u32 - 1));
        gguf.meta("tokenizer.chat_template", Meta::Text("{{ messages[0].content }}".into()));

        gguf.tensor("token_embd.weight", &[vocab, HIDDEN], 1);
        gguf.tensor("output_norm.weight", &[HIDDEN], 0);
        for layer in 0..LAYERS {
            for (name, shape) in [
                ("attn_norm", vec![HIDDEN]),
                ("attn_q", vec![HEADS * HEAD_DIM, HIDDEN]),
                ("attn_k", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
                ("attn_v", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
                ("attn_output", vec![HIDDEN, HEADS * HEAD_DIM]),
                ("ffn_norm", vec![HIDDEN]),
                ("ffn_gate", vec![FEED_FORWARD, HIDDEN]),
                ("ffn_up", vec![FEED_FORWARD, HIDDEN]),
                ("ffn_down", vec![HIDDEN, FEED_FORWARD]),
            ] {
                let kind = if shape.len() == 1 { 0 } else { 8 };
                gguf.tensor(&format!("blk.{layer}.{name}.weight"), &shape, kind);
            }
        }
        gguf
    }

    pub fn meta(&mut self, key: &str, value: Meta) {
        self.meta.retain(|(other, _)| other != key);
        self.meta.push((key.into(), value));
    }

    /// A tensor of type F32 (0), F16 (1) or Q8_0 (8) whose row `r` holds the value `r`, a vector's element `i`
    /// the value `i`.
    pub fn tensor(&mut self, name: &str, shape: &[usize], ggml_type: u32) {
        let (rows, columns) = if let [rows, columns] = shape { (*rows, *columns) } else { (shape[0], 1) };
        let mut bytes = Vec::new();
        for row in 0..rows {
            let value = row as f32;
            match ggml_type {
                0 => bytes.extend(value.to_le_bytes().repeat(columns)),
                1 => bytes.extend(half::f16::from_f32(value).to_le_bytes().repeat(columns)),
                _ => {
                    for _ in 0..columns / 32 {
                        bytes.extend(half::f16::from_f32(value).to_le_bytes());
                        bytes.extend([1; 32]);
                    }
                }
            }
        }
        let shape = shape.iter().map(|size| *size as u64).collect();
        self.tensors.push(Tensor { name: name.into(), shape, ggml_type, bytes });
    }

    /// The file, and the length of its header in bytes.
    pub fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.meta.len() as u64).to_le_bytes());
        for (key, value) in &self.meta {
            text(&mut out, key);
            write_meta(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for size in tensor.shape.iter().rev() {
                out.extend(size.to_le_bytes());
            }
            out.extend(tensor.ggml_type.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (tensor.bytes.len() as u64).next_multiple_of(32);
        }
        let header = out.len();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.bytes);
        }
        (out, header)
    }
}

/// The 256 byte tokens, three merged ones, and an end token.
fn byte_tokens() -> Vec<String> {
    let mut alphabet: Vec<char> =
        (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).filter_map(char::from_u32).collect();
    alphabet.extend((0x100..0x100 + 256 - alphabet.len() as u32).filter_map(char::from_u32));
    let mut tokens: Vec<String> = alphabet.into_iter().map(String::from).collect();
    tokens.extend(["Ġt", "he", "Ġthe", "<|endoftext|>"].map(String::from));
    tokens
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_meta(out: &mut Vec<u8>, value: &Meta) {
    fn array(out: &mut Vec<u8>, kind: u32, count: usize) {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    }
    match value {
        Meta::U32(value) => {
            out.extend(4u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        Meta::F32(value) => {
            out.extend(6u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        Meta::Bool(value) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*value));
        }
        Meta::Text(value) => {
            out.extend(8u32.to_le_bytes());
            text(out, value);
        }
        Meta::Texts(values) => {
            array(out, 8, values.len());
            values.iter().for_each(|value| text(out, value));
        }
        Meta::I32s(values) => {
            array(out, 5, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Meta::F32s(values) => {
            array(out, 6, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
    }
}
