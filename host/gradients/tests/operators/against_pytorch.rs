//! Twenty training steps of the tiny checkpoints against the losses that PyTorch gave on the same weights and data.

use std::{collections::HashMap, f64::consts::PI, path::PathBuf};

use candle_core::{DType, Device, Result, Tensor, Var};
use modularbase_gradients as g;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints")
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

struct Model {
    weights: HashMap<String, Tensor>,
    config: Value,
    table: g::RopeTable,
    length: usize,
}

impl Model {
    fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }

    fn load(name: &str, length: usize) -> Self {
        let config = json(folder().join(name).join("config.json"));
        let mut weights = HashMap::new();
        for entry in std::fs::read_dir(folder().join(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                weights.extend(candle_core::safetensors::load(path, &Device::Cpu).unwrap());
            }
        }
        let weights = weights.into_iter().map(|(name, x)| (name, x.to_dtype(DType::F32).unwrap())).collect();
        let table = g::RopeTable::new(&inverse_frequencies(&config), length, &Device::Cpu).unwrap();
        Self { weights, config, table, length }
    }

    /// Makes variables of the weights that `trained` names; in the order of their names.
    fn train(&mut self, trained: impl Fn(&str) -> bool) -> Vec<g::Parameter> {
        let mut names: Vec<String> = self.weights.keys().filter(|name| trained(name)).cloned().collect();
        names.sort();
        let mut parameters = Vec::new();
        for name in names {
            let var = Var::from_tensor(&self.weights[&name]).unwrap();
            self.weights.insert(name.clone(), var.as_tensor().clone());
            parameters.push(g::Parameter::new(name, var));
        }
        parameters
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        g::linear(x, &self.weights[&format!("{name}.weight")], self.weights.get(&format!("{name}.bias")))
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        g::rms_norm(x, &self.weights[name], self.config["rms_norm_eps"].as_f64().unwrap() as f32)
    }

    /// The mean loss of rows of token ids.
    fn loss(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (heads, kv_heads) = (self.number("num_attention_heads"), self.number("num_key_value_heads"));
        let embedding = &self.weights["model.embed_tokens.weight"];
        let mut x = g::embedding(ids, embedding)?;
        for layer in 0..self.number("num_hidden_layers") {
            let at = |name: &str| format!("model.layers.{layer}.{name}");
            let normed = self.norm(&x, &at("input_layernorm.weight"))?;
            let turn = |x: Tensor| g::rope(&x, &self.table, g::RopeLayout::Half, self.table.head_dim());
            let q = turn(self.linear(&normed, &at("self_attn.q_proj"))?)?;
            let k = turn(self.linear(&normed, &at("self_attn.k_proj"))?)?;
            let v = self.linear(&normed, &at("self_attn.v_proj"))?;
            let mixed = g::attention(&q, &k, &v, heads, kv_heads, self.length, true)?;
            x = g::add(&x, &self.linear(&mixed, &at("self_attn.o_proj"))?)?;
            let normed = self.norm(&x, &at("post_attention_layernorm.weight"))?;
            let gate = self.linear(&normed, &at("mlp.gate_proj"))?;
            let inner = g::silu_mul(&gate, &self.linear(&normed, &at("mlp.up_proj"))?)?;
            x = g::add(&x, &self.linear(&inner, &at("mlp.down_proj"))?)?;
        }
        let x = self.norm(&x, "model.norm.weight")?;
        let rows = x.dims()[0];
        let tied = self.config["tie_word_embeddings"].as_bool().unwrap();
        let head = if tied { embedding } else { &self.weights["lm_head.weight"] };
        let ones = Tensor::ones(rows, DType::F32, &Device::Cpu)?;
        g::scale(&g::cross_entropy(&x, head, targets, &ones, 24)?, 1.0 / rows as f32)
    }
}

/// With the scaling of Llama 3, where the config has it.
fn inverse_frequencies(config: &Value) -> Vec<f32> {
    let (width, heads) =
        (config["hidden_size"].as_u64().unwrap(), config["num_attention_heads"].as_u64().unwrap());
    let d = config["head_dim"].as_u64().unwrap_or(width / heads);
    let scaling = &config["rope_scaling"];
    (0..d / 2)
        .map(|pair| {
            let plain = config["rope_theta"].as_f64().unwrap().powf(-2.0 * pair as f64 / d as f64);
            let Some(factor) = scaling["factor"].as_f64() else { return plain as f32 };
            let (low, high) =
                (scaling["low_freq_factor"].as_f64().unwrap(), scaling["high_freq_factor"].as_f64().unwrap());
            let turns = scaling["original_max_position_embeddings"].as_f64().unwrap() * plain / (2.0 * PI);
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (((1.0 - smooth) / factor + smooth) * plain) as f32
        })
        .collect()
}

/// The ids and targets of a step, by the formula that the fixture names.
fn data(step: u32, sequences: u32, length: u32) -> (Tensor, Tensor) {
    let id = |row: u32, p: u32| 3 + (step * 7919 + row * 104_729 + p * p * 31 + p * 17) % 97;
    let rows = |shift: u32| -> Vec<u32> {
        (0..sequences).flat_map(|row| (0..length).map(move |p| id(row, p + shift))).collect()
    };
    let tensor = |ids: Vec<u32>| Tensor::new(ids, &Device::Cpu).unwrap();
    (tensor(rows(0)), tensor(rows(1)))
}

#[test]
fn twenty_steps_give_the_losses_of_pytorch_for_a_slot_and_for_a_whole_model() {
    let fixture = json(folder().join("training.json"));
    let (sequences, length) =
        (fixture["sequences"].as_u64().unwrap() as u32, fixture["length"].as_u64().unwrap() as u32);
    let runs = fixture["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    for run in runs {
        let mut model = Model::load(run["checkpoint"].as_str().unwrap(), length as usize);
        let (whole, slot) = (run["trained"] == "all", &run["slot"]);
        let inside = |name: &str| {
            let layer =
                name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
            layer.is_some_and(|layer: u64| {
                (slot[0].as_u64().unwrap()..slot[1].as_u64().unwrap()).contains(&layer)
            })
        };
        let parameters = model.train(|name| whole || inside(name));
        assert_eq!(parameters.len() as u64, run["parameters"].as_u64().unwrap());
        let config = g::AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.01 };
        let mut optimizer = g::AdamW::new(parameters, config).unwrap();
        let (losses, norms) = (run["losses"].as_array().unwrap(), run["gradient_norms"].as_array().unwrap());
        for (step, (loss, norm)) in (0..).zip(losses.iter().zip(norms)) {
            let (ids, targets) = data(step, sequences, length);
            let found = model.loss(&ids, &targets).unwrap();
            let gradients = g::backward(&found).unwrap();
            let found_norm = optimizer.step(&gradients, 1e-3, Some(1.0)).unwrap().to_scalar::<f32>().unwrap();
            let (found, loss) = (f64::from(found.to_scalar::<f32>().unwrap()), loss.as_f64().unwrap());
            let name = format!("{} {} step {step}", run["checkpoint"], run["trained"]);
            assert!((found - loss).abs() < 1e-4 * loss, "{name}: loss {found} against {loss}");
            let norm = norm.as_f64().unwrap();
            assert!(
                (f64::from(found_norm) - norm).abs() < 1e-3 * norm,
                "{name}: norm {found_norm} against {norm}"
            );
        }
    }
}
