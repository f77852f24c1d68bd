"""A training step of a pack in PyTorch, in the shapes of SmolLM2-135M; prints one JSON object.

The layers in front of the slot run without gradients; those in it are trained; those behind it and the head only lead
gradients back. Weights are random, which changes no time. As on this project's side everything is f32 on the CPU; on a GPU
frozen weights and all products are bf16, trained weights f32. Parts of a step are timed on the CPU only: a GPU would have to
be waited for between them.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F

WIDTH, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY = 576, 9, 3, 64, 1536, 49152


class Layer(torch.nn.Module):
    def __init__(self, is_trained):
        super().__init__()
        sizes = {
            "q": (WIDTH, WIDTH),
            "k": (KV_HEADS * HEAD, WIDTH),
            "v": (KV_HEADS * HEAD, WIDTH),
            "o": (WIDTH, WIDTH),
            "gate": (INNER, WIDTH),
            "up": (INNER, WIDTH),
            "down": (WIDTH, INNER),
        }
        for name, size in sizes.items():
            self.register_parameter(name, torch.nn.Parameter(torch.randn(size) * 0.04, is_trained))
        for name in ["norm1", "norm2"]:
            self.register_parameter(name, torch.nn.Parameter(torch.ones(WIDTH), is_trained))

    def forward(self, x, cos, sin):
        rows, length, _ = x.shape

        def heads(h, weight, count):
            return F.linear(h, weight).view(rows, length, count, HEAD).transpose(1, 2)

        def turned(h):
            a, b = h.chunk(2, -1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

        h = F.rms_norm(x, (WIDTH,), self.norm1.to(x.dtype), 1e-5)
        q, k, v = heads(h, self.q, HEADS), heads(h, self.k, KV_HEADS), heads(h, self.v, KV_HEADS)
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True, enable_gqa=True)
        x = x + F.linear(y.transpose(1, 2).reshape(rows, length, WIDTH), self.o)
        h = F.rms_norm(x, (WIDTH,), self.norm2.to(x.dtype), 1e-5)
        return x + F.linear(F.silu(F.linear(h, self.gate)) * F.linear(h, self.up), self.down)


def main():
    parser = argparse.ArgumentParser()
    for name in ["rows", "length", "rounds", "threads", "before", "trained", "behind"]:
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    torch.set_default_device(given.device)
    on_gpu = given.device == "cuda"
    frozen_dtype = torch.bfloat16 if on_gpu else torch.float32
    before = [Layer(False).to(frozen_dtype) for _ in range(given.before)]
    trained = torch.nn.ModuleList(Layer(True) for _ in range(given.trained))
    behind = [Layer(False).to(frozen_dtype) for _ in range(given.behind)]
    table = (torch.randn(VOCABULARY, WIDTH) * 0.04).to(frozen_dtype)
    norm = torch.ones(WIDTH)
    angles = torch.arange(given.length)[:, None] * 1e4 ** (-torch.arange(0, HEAD, 2) / HEAD)[None]
    cos, sin = angles.cos(), angles.sin()
    ids = torch.randint(0, VOCABULARY, (given.rows, given.length))
    targets = torch.randint(0, VOCABULARY, (given.rows * given.length,))
    update = torch.optim.AdamW(trained.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.01, fused=on_gpu)

    def before_slot():
        with torch.no_grad():
            x = table[ids]
            for layer in before:
                x = layer(x, cos, sin)
        return x

    def loss_of(x):
        for layer in [*trained, *behind]:
            x = layer(x, cos, sin)
        x = F.rms_norm(x, (WIDTH,), norm.to(x.dtype), 1e-5)
        return F.cross_entropy(F.linear(x, table).view(-1, VOCABULARY), targets)

    if given.compile:
        before_slot, loss_of = torch.compile(before_slot), torch.compile(loss_of)

    def step():
        times = [time.perf_counter()]
        with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            x = before_slot()
            times.append(time.perf_counter())
            loss = loss_of(x)
        times.append(time.perf_counter())
        update.zero_grad(set_to_none=True)
        loss.backward()
        times.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        update.step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        return [b - a for a, b in zip(times, times[1:])]

    for _ in range(3 if on_gpu else 1):
        step()
    steps = [step() for _ in range(given.rounds)]

    def median(values):
        return sorted(values)[len(values) // 2]

    whole = median([sum(parts) for parts in steps])
    found = {
        "torch": torch.__version__,
        "compiled": given.compile,
        "tokens_per_s": given.rows * given.length / whole,
        "step_ms": whole * 1e3,
    }
    if not on_gpu:
        names = ["base_forward", "pack_fusion_and_head_forward", "backward", "adamw"]
        found["parts_ms"] = {name: median([parts[i] for parts in steps]) * 1e3 for i, name in enumerate(names)}
    print(json.dumps(found))


main()
