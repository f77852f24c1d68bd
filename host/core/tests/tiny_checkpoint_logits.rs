//! Bases of other shapes than the default one against logits that were computed independently (NumPy, float64):
//! Qwen2 (QKV bias, tied head) and Llama 3 (RoPE scaling, own head), both with grouped-query attention.

mod tiny_checkpoint;

use std::sync::Arc;

use modularbase_core::{
    Advance, Backend, BaseCore, BaseFile, CpuBackend, KvDtype, LogitRows, Mixture, Sequence, TensorBackend,
    WeightDtype,
};
use pack_sdk::SlotRange;

const SLOT: SlotRange = SlotRange { start: 1, end: 3 };

fn check(name: &str, backend: Arc<dyn Backend>) {
    let file = BaseFile::open(tiny_checkpoint::folder(name)).unwrap();
    let core = BaseCore::load(&file, SLOT, backend, WeightDtype::F32, &mut |_, _| {}).unwrap();
    let general = Mixture::single(core.own_slot_layers().unwrap().into());
    for case in tiny_checkpoint::expected(name).cases {
        let mut sequence = Sequence::new(&core, general.clone());
        let step = Advance { sequence: &mut sequence, tokens: &case.token_ids, logits: LogitRows::All };
        let logits = core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();
        let expected = case.logits.concat();
        assert_eq!(logits.len(), expected.len());
        for (index, (found, wanted)) in logits.iter().zip(&expected).enumerate() {
            let (token, id) = (index / core.shape().vocab_size, index % core.shape().vocab_size);
            // Logits are of the order of 10; f32 sums over 160 products keep about five digits.
            let close = (found - wanted).abs() <= 1e-3 * wanted.abs().max(1.0);
            assert!(
                close,
                "{name}, '{}', position {token}, id {id}: {found}, expected {wanted}",
                case.prompt
            );
        }
    }
}

fn cpu() -> Arc<dyn Backend> {
    Arc::new(CpuBackend::new(2, KvDtype::F32))
}

#[test]
fn qwen2_shaped_checkpoint_gives_the_independent_logits_on_cpu_kernels() {
    check("tiny-qwen2", cpu());
}

#[test]
fn llama3_shaped_checkpoint_gives_the_independent_logits_on_cpu_kernels() {
    check("tiny-llama3", cpu());
}

#[test]
fn qwen2_shaped_checkpoint_gives_the_independent_logits_on_the_tensor_executor() {
    check("tiny-qwen2", Arc::new(TensorBackend::cpu()));
}

#[test]
fn llama3_shaped_checkpoint_gives_the_independent_logits_on_the_tensor_executor() {
    check("tiny-llama3", Arc::new(TensorBackend::cpu()));
}
