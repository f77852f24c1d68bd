//! A query row's result is the same to the bit however its prompt is cut up and whatever is computed beside it.

use crate::attention::{Case, case, run, shape};
use crate::common::{Random, pools};
use modularbase_kernels::{AttentionShape, CpuLevel, ThreadPool};

/// Rows `from..to` of a case, with the cache as it is once they are in it.
fn piece(whole: &Case, shape: AttentionShape, from: usize, to: usize) -> Case {
    let width = shape.heads * shape.head_dim;
    let kv = shape.kv_heads * shape.head_dim;
    let seen = (whole.past + to) * kv;
    Case {
        q: whole.q[from * width..to * width].to_vec(),
        keys: whole.keys[..seen].to_vec(),
        values: whole.values[..seen].to_vec(),
        past: whole.past + from,
        m: to - from,
    }
}

/// Bits, with all NaN as one: which of them comes out is no property of a number.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

#[track_caller]
fn assert_rows(
    pool: &ThreadPool,
    whole: &Case,
    at_once: &[u32],
    shape: AttentionShape,
    half: bool,
    (from, to): (usize, usize),
) {
    let width = shape.heads * shape.head_dim;
    let found = bits(&run(pool, &[&piece(whole, shape, from, to)], shape, half)[0]);
    let level = pool.level();
    for row in from..to {
        assert!(
            found[(row - from) * width..][..width] == at_once[row * width..][..width],
            "{shape:?} half={half} {level:?} past={}: row {row} differs in {from}..{to}",
            whole.past
        );
    }
}

/// Odd and even groups, more query heads than one pass serves, head widths with and without a rest.
fn shapes() -> [AttentionShape; 8] {
    [
        shape(9, 3, 64),
        shape(4, 4, 16),
        shape(14, 2, 64),
        shape(5, 1, 128),
        shape(2, 1, 8),
        shape(3, 1, 72),
        shape(2, 2, 80),
        shape(7, 7, 33),
    ]
}

#[test]
fn a_row_alone_equals_itself_in_a_prefill_of_any_chunking() {
    let mut random = Random(11);
    for shape in shapes() {
        for (past, m) in [(0, 300), (100, 60), (250, 12)] {
            let whole = case(&mut random, shape, past, m);
            for pool in pools() {
                for half in [false, true] {
                    let at_once = bits(&run(&pool, &[&whole], shape, half)[0]);
                    for row in (0..m).filter(|row| row % 29 == 0 || (past + row) % 128 < 2 || row + 1 == m) {
                        assert_rows(&pool, &whole, &at_once, shape, half, (row, row + 1));
                    }
                    for size in [2, 5, 16, 17, 64, 131] {
                        // The pieces in which a prompt would be fed, but not all of the small ones.
                        for from in (0..m).step_by(size).filter(|from| size > 16 || from / size % 7 == 0) {
                            assert_rows(&pool, &whole, &at_once, shape, half, (from, (from + size).min(m)));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut random = Random(12);
    for shape in [shape(9, 3, 64), shape(3, 1, 72)] {
        for (past, m) in [(900, 1), (500, 7), (130, 90)] {
            let whole = case(&mut random, shape, past, m);
            for pool in pools() {
                for half in [false, true] {
                    let two = bits(&run(&pool, &[&whole], shape, half)[0]);
                    for threads in [1, 3, 4, 7] {
                        let pool = ThreadPool::with_level(threads, pool.level());
                        assert!(
                            bits(&run(&pool, &[&whole], shape, half)[0]) == two,
                            "{threads} threads, {shape:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn rows_that_see_everything_do_not_depend_on_their_number() {
    let mut random = Random(13);
    for causal in shapes() {
        let shape = AttentionShape { causal: false, ..causal };
        let whole = case(&mut random, shape, 210, 60);
        let width = shape.heads * shape.head_dim;
        for pool in pools() {
            for half in [false, true] {
                let at_once = bits(&run(&pool, &[&whole], shape, half)[0]);
                for (from, to) in [(0, 1), (59, 60), (7, 12), (20, 50)] {
                    let some = Case {
                        q: whole.q[from * width..to * width].to_vec(),
                        keys: whole.keys.clone(),
                        values: whole.values.clone(),
                        past: whole.past + whole.m - (to - from),
                        m: to - from,
                    };
                    let found = bits(&run(&pool, &[&some], shape, half)[0]);
                    assert!(found == at_once[from * width..to * width], "{shape:?} {from}..{to}");
                }
            }
        }
    }
}

#[test]
fn later_tokens_that_are_not_finite_change_no_bit_of_earlier_rows() {
    let mut random = Random(14);
    for shape in [shape(9, 3, 64), shape(2, 2, 16), shape(3, 1, 72)] {
        let kv = shape.kv_heads * shape.head_dim;
        for (past, m, bad) in [(0, 200, 130), (120, 12, 125), (125, 40, 128)] {
            let good = case(&mut random, shape, past, m);
            for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut broken = piece(&good, shape, 0, m);
                broken.keys[bad * kv..(bad + 1) * kv].fill(number);
                broken.values[bad * kv..(bad + 1) * kv].fill(number);
                let before = (bad - past) * shape.heads * shape.head_dim;
                for pool in pools() {
                    for half in [false, true] {
                        let wanted = bits(&run(&pool, &[&good], shape, half)[0]);
                        let found = bits(&run(&pool, &[&broken], shape, half)[0]);
                        assert!(found[..before] == wanted[..before], "{shape:?} {number} {:?}", pool.level());
                        // What sees it is the same alone, too.
                        for row in [bad - past, m - 1] {
                            assert_rows(&pool, &broken, &found, shape, half, (row, row + 1));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn levels_with_fused_multiplication_agree_to_the_bit() {
    let mut random = Random(15);
    for shape in shapes() {
        for (past, m) in [(200, 1), (0, 150)] {
            let case = case(&mut random, shape, past, m);
            for half in [false, true] {
                let fused = pools().into_iter().filter(|pool| pool.level() >= CpuLevel::Avx2);
                let results: Vec<_> = fused.map(|pool| bits(&run(&pool, &[&case], shape, half)[0])).collect();
                assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{shape:?} half={half} m={m}");
            }
        }
    }
}
