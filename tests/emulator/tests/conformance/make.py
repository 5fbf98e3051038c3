#!/usr/bin/env python3
"""Makes the cases in this folder: PTX of our own kernels, random operands, products computed in Python's floats.

Run it after the PTX in ../../benches has changed. Cases by others: set PTX_CONFORMANCE_DIR.
"""
import json
import pathlib
import random
import shutil
import struct

HERE = pathlib.Path(__file__).parent
PTX = HERE.parent.parent / "benches"


def bf16_bits(value):
    """Rounds a small normal number to bf16, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def write(folder, name, code, values):
    (folder / name).write_bytes(struct.pack(f"<{len(values)}{code}", *values))


def case(name, ptx, **fields):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    shutil.copy(PTX / ptx, folder / "kernel.ptx")
    (folder / "case.json").write_text(json.dumps({"name": name, "target": "sm_80", **fields}, indent=1) + "\n")
    return folder


def scalar(value):
    return {"kind": "scalar", "type": "i32", "value": value}


def buffer(name):
    return {"kind": "buffer", "buffer": name}


def sgemm():
    m, n, k = 64, 128, 32
    x = [f32(random.uniform(-1, 1)) for _ in range(m * k)]
    w = [f32(random.uniform(-1, 1)) for _ in range(k * n)]
    y = [sum(x[i * k + l] * w[l * n + j] for l in range(k)) for i in range(m) for j in range(n)]
    folder = case(
        "sgemm_sm80", "sgemm.ptx", entry="sgemm", grid=[n // 64, m // 64, 1], block=[64, 1, 1],
        params=[buffer("y"), buffer("x"), buffer("w"), scalar(n), scalar(k)],
        buffers=[
            {"name": "y", "dtype": "f32", "shape": [m, n], "init": "zero", "expect": "y.bin", "rtol": 1e-5, "atol": 1e-5},
            {"name": "x", "dtype": "f32", "shape": [m, k], "init": "x.bin", "expect": "unchanged"},
            {"name": "w", "dtype": "f32", "shape": [k, n], "init": "w.bin", "expect": "unchanged"},
        ],
    )
    for name, values in [("x", x), ("w", w), ("y", y)]:
        write(folder, f"{name}.bin", "f", values)


def gemm():
    m, n, k = 45, 37, 40
    x = [bf16_bits(random.uniform(-1, 1)) for _ in range(m * k)]
    w = [bf16_bits(random.uniform(-1, 1)) for _ in range(n * k)]
    bias = [f32(random.uniform(-1, 1)) for _ in range(n)]
    y = [
        bf16_bits(sum(bf16(x[i * k + l]) * bf16(w[j * k + l]) for l in range(k)) + bias[j])
        for i in range(m) for j in range(n)
    ]
    folder = case(
        "gemm_bf16_sm80", "gemm.ptx", entry="gemm_nt", grid=[1, 1, 1], block=[256, 1, 1],
        dynamic_shared_bytes=65536,
        params=[buffer("y"), buffer("x"), buffer("w"), buffer("bias"), scalar(m), scalar(n), scalar(k)],
        buffers=[
            {"name": "y", "dtype": "bf16", "shape": [m, n], "init": "zero", "expect": "y.bin", "rtol": 0.008, "atol": 1e-4},
            {"name": "x", "dtype": "bf16", "shape": [m, k], "init": "x.bin", "expect": "unchanged"},
            {"name": "w", "dtype": "bf16", "shape": [n, k], "init": "w.bin", "expect": "unchanged"},
            {"name": "bias", "dtype": "f32", "shape": [n], "init": "bias.bin", "expect": "unchanged"},
        ],
    )
    for name, values in [("x", x), ("w", w), ("y", y)]:
        write(folder, f"{name}.bin", "H", values)
    write(folder, "bias.bin", "f", bias)


random.seed(3)
sgemm()
gemm()
