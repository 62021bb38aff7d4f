//! Blocks of quantised numbers to f32, as ggml's reference code does it, bit for bit.
//!
//! A block of type 0 is `d · (q − offset)`, of type 1 `d · q + m`; a block of type K is eight or sixteen small blocks whose scales are
//! quantised again. Nibbles: the low halves of the bytes come first, then the high halves.
//!
//! Source: ggml, `ggml-common.h` (layouts) and `ggml-quants.c` (`dequantize_row_*`).

use half::{bf16, f16};
use rayon::prelude::*;
use regard::Element;

use super::kind::GgufKind;

/// Blocks that one thread widens at a time.
const RUN: usize = 4096;

/// The most numbers of a block.
const MOST: usize = 256;

/// The numbers of whole blocks, each less what the file has `added` to it.
pub(super) fn numbers<T: Element>(kind: GgufKind, bytes: &[u8], added: f32) -> Vec<T> {
    let (numbers, size) = kind.block();
    let widen_block: fn(&[u8], &mut [f32]) = match kind {
        GgufKind::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        GgufKind::F16 => |b, out| out[0] = half(b, 0),
        GgufKind::Bf16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        GgufKind::Q4_0 => q4_0,
        GgufKind::Q4_1 => q4_1,
        GgufKind::Q5_0 => q5_0,
        GgufKind::Q5_1 => q5_1,
        GgufKind::Q8_0 => q8_0,
        GgufKind::Q4K => q4_k,
        GgufKind::Q5K => q5_k,
        GgufKind::Q6K => q6_k,
    };
    let mut out = vec![T::default(); bytes.len() / size * numbers];
    let runs = out.par_chunks_mut(RUN * numbers).zip(bytes.par_chunks(RUN * size));
    runs.for_each(|(out, bytes)| {
        let mut wide = [0.0; MOST];
        let wide = &mut wide[..numbers];
        for (out, block) in out.chunks_exact_mut(numbers).zip(bytes.chunks_exact(size)) {
            widen_block(block, wide);
            wide.iter_mut().for_each(|x| *x -= added);
            T::narrow(wide, out);
        }
    });
    out
}

/// The f16 at byte `at`.
fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// Nibble `i` of 32 in 16 bytes.
fn nibble(q: &[u8], i: usize) -> u8 {
    if i < 16 { q[i] & 15 } else { q[i - 16] >> 4 }
}

/// Nibble `i` with bit `i` of `high` on top.
fn five(q: &[u8], high: &[u8], i: usize) -> u8 {
    nibble(q, i) | ((high[i / 8] >> (i % 8)) & 1) << 4
}

fn q4_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    out.iter_mut().enumerate().for_each(|(i, x)| *x = d * (f32::from(nibble(&b[2..], i)) - 8.0));
}

fn q4_1(b: &[u8], out: &mut [f32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    out.iter_mut().enumerate().for_each(|(i, x)| *x = d * f32::from(nibble(&b[4..], i)) + m);
}

fn q5_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    out.iter_mut().enumerate().for_each(|(i, x)| *x = d * (f32::from(five(&b[6..], &b[2..6], i)) - 16.0));
}

fn q5_1(b: &[u8], out: &mut [f32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    out.iter_mut().enumerate().for_each(|(i, x)| *x = d * f32::from(five(&b[8..], &b[4..8], i)) + m);
}

fn q8_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    out.iter_mut().zip(&b[2..]).for_each(|(x, &q)| *x = d * f32::from(q as i8));
}

/// Scale and minimum `j` of eight, 6 bits each in 12 bytes: the lower four plain, the upper four split.
fn scale_and_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4)
    };
    (scale.into(), min.into())
}

/// `x = (d · scale) · q − (dmin · min)`, in eight small blocks of 32 numbers; two small blocks share 32 bytes of nibbles.
fn small_blocks(b: &[u8], nibbles: &[u8], out: &mut [f32], high: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&b[4..16], j);
        let (scale, min) = (d * scale, dmin * min);
        for (i, x) in out.iter_mut().enumerate() {
            let q = (nibbles[j / 2 * 32 + i] >> (4 * (j % 2))) & 15;
            *x = scale * f32::from(q | high(j, i)) - min;
        }
    }
}

fn q4_k(b: &[u8], out: &mut [f32]) {
    small_blocks(b, &b[16..], out, |_, _| 0);
}

fn q5_k(b: &[u8], out: &mut [f32]) {
    small_blocks(b, &b[48..], out, |j, i| ((b[16 + i] >> j) & 1) << 4);
}

/// `x = (d · scale) · (q − 32)`: scales for 16 numbers; q has 4 bits in the first 128 bytes and 2 in the next 64.
fn q6_k(b: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(b, 208));
    for (i, x) in out.iter_mut().enumerate() {
        let (part, quarter, lane) = (i / 128, i % 128 / 32, i % 32);
        let four = (low[64 * part + 32 * (quarter % 2) + lane] >> (4 * (quarter / 2))) & 15;
        let two = (high[32 * part + lane] >> (2 * quarter)) & 3;
        *x = d * f32::from(scales[i / 16] as i8) * (f32::from(four | two << 4) - 32.0);
    }
}
