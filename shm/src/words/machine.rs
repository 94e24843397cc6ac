//! The operations that are worth instructions of their own, on x86-64.
//!
//! The memory model knows no atomic access wider than a word, so the wide ones are inline assembly, which the compiler
//! neither looks into nor moves across the fences around it. To the protocol each is a sequence of relaxed accesses in any
//! order, of which single bytes may be of different moments: bytes that are not all of one record are recognised by the
//! stamp and the header that are accessed as words, and never used (`docs/segment.md`).

#![allow(unsafe_code, reason = "inline assembly over words that others may write")]

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) use portable::*;
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) use x86_64::*;

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, _MM_HINT_T0, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_prefetch,
        _mm_set1_epi16,
    };
    use std::sync::atomic::{AtomicU64, Ordering};

    #[inline]
    pub(in super::super) fn prefetch(at: *const AtomicU64) {
        // SAFETY: a prefetch faults on no address.
        unsafe { _mm_prefetch(at.cast::<i8>(), _MM_HINT_T0) };
    }

    #[inline]
    pub(in super::super) fn prefetch_for_writing(at: *const AtomicU64) {
        // SAFETY: a prefetch faults on no address, and changes no byte. Processors that do not know this one ignore it.
        unsafe { asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
    }

    /// # Safety
    ///
    /// `from` points to the words of `size` bytes that live and are accessed atomically, `to` to as many bytes of the
    /// caller's own.
    #[inline]
    pub(in super::super) unsafe fn copy(from: *const AtomicU64, to: *mut u8, size: usize) {
        if size < 64 {
            // SAFETY: by the contract.
            return unsafe { copy_by_words(from, to, size) };
        }
        // SAFETY: the first `size / 64 * 64` bytes.
        unsafe { copy_all_lines(from.cast(), to, size & !63) };
        if !size.is_multiple_of(64) {
            // The last 64, of which some once more: one step instead of one for each word.
            let last = size - 64;
            // SAFETY: the last 64 of at least as many bytes.
            unsafe { copy_all_lines(from.cast::<u8>().add(last), to.add(last), 64) };
        }
    }

    /// Relaxed stores of words, of which readers may see a part.
    ///
    /// # Safety
    ///
    /// `to` points to as many words, which live and are accessed atomically.
    #[inline]
    pub(in super::super) unsafe fn store_all(to: *const AtomicU64, words: &[[u8; 8]]) {
        if words.len() < 8 {
            for (at, &word) in words.iter().enumerate() {
                // SAFETY: one of the words.
                unsafe { &*to.add(at) }.store(u64::from_ne_bytes(word), Ordering::Relaxed);
            }
            return;
        }
        let (from, to) = (words.as_ptr().cast::<u8>(), to.cast_mut().cast::<u8>());
        let size = words.len() * 8;
        // SAFETY: the first `size / 64 * 64` bytes of both; who hands words out as atomics lets them be written.
        unsafe { copy_all_lines(from, to, size & !63) };
        if !size.is_multiple_of(64) {
            // The last 64, of which some once more, as in `copy`.
            let last = size - 64;
            // SAFETY: the last 64 of at least as many bytes.
            unsafe { copy_all_lines(from.add(last), to.add(last), 64) };
        }
    }

    /// # Safety
    ///
    /// `from` and `to` point to `size` bytes each, a multiple of 64, that do not overlap. On one side they are the
    /// caller's own, on the other words that live and are accessed atomically.
    #[inline]
    unsafe fn copy_all_lines(from: *const u8, to: *mut u8, size: usize) {
        if size == 0 {
            return;
        }
        // SAFETY: by the contract, and the processor has AVX where it is used.
        unsafe {
            if is_x86_feature_detected!("avx") {
                copy_lines_avx(from, to, size);
            } else {
                copy_lines(from, to, size);
            }
        }
    }

    /// # Safety
    ///
    /// As for `copy_all_lines`; `size` is not 0.
    #[inline]
    unsafe fn copy_lines(from: *const u8, to: *mut u8, size: usize) {
        // SAFETY: reads and writes `size` bytes.
        unsafe {
            asm!(
                "2:",
                "movdqu {a}, [{from} + {at}]",
                "movdqu {b}, [{from} + {at} + 16]",
                "movdqu {c}, [{from} + {at} + 32]",
                "movdqu {d}, [{from} + {at} + 48]",
                "movdqu [{to} + {at}], {a}",
                "movdqu [{to} + {at} + 16], {b}",
                "movdqu [{to} + {at} + 32], {c}",
                "movdqu [{to} + {at} + 48], {d}",
                "add {at}, 64",
                "cmp {at}, {size}",
                "jne 2b",
                at = inout(reg) 0_usize => _,
                size = in(reg) size,
                from = in(reg) from,
                to = in(reg) to,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack),
            );
        }
    }

    /// # Safety
    ///
    /// As for `copy_lines`, on a processor with AVX.
    #[inline]
    unsafe fn copy_lines_avx(from: *const u8, to: *mut u8, size: usize) {
        // Named registers, since those of an operand are 128 bits wide where AVX is not enabled for the whole function.
        // All are given up, because `vzeroupper`, without which code for SSE after it is slow, cuts them all short.
        // SAFETY: reads and writes `size` bytes.
        unsafe {
            asm!(
                "2:",
                "vmovdqu ymm0, [{from} + {at}]",
                "vmovdqu ymm1, [{from} + {at} + 32]",
                "vmovdqu [{to} + {at}], ymm0",
                "vmovdqu [{to} + {at} + 32], ymm1",
                "add {at}, 64",
                "cmp {at}, {size}",
                "jne 2b",
                "vzeroupper",
                at = inout(reg) 0_usize => _,
                size = in(reg) size,
                from = in(reg) from,
                to = in(reg) to,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nostack),
            );
        }
    }

    /// # Safety
    ///
    /// As for `copy`.
    #[inline]
    unsafe fn copy_by_words(mut from: *const AtomicU64, mut to: *mut u8, size: usize) {
        for _ in 0..size / 8 {
            // SAFETY: `size / 8` whole words are there on both sides; a byte array needs no alignment.
            unsafe {
                to.cast::<[u8; 8]>().write((*from).load(Ordering::Relaxed).to_ne_bytes());
                from = from.add(1);
                to = to.add(8);
            }
        }
        if !size.is_multiple_of(8) {
            // SAFETY: the last word is there, and the `size % 8` bytes that go to the caller.
            unsafe {
                let last = (*from).load(Ordering::Relaxed).to_ne_bytes();
                to.copy_from_nonoverlapping(last.as_ptr(), size % 8);
            }
        }
    }

    /// # Safety
    ///
    /// `from` points to seven words that live and are accessed atomically.
    #[inline]
    pub(in super::super) unsafe fn lanes(from: *const AtomicU64, lane: u16) -> u32 {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: reads the seven words; the last load takes one word and zeros.
        unsafe {
            asm!(
                "movdqu {a}, [{from}]",
                "movdqu {b}, [{from} + 16]",
                "movdqu {c}, [{from} + 32]",
                "movq {d}, [{from} + 48]",
                from = in(reg) from,
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = out(xmm_reg) d,
                options(nostack, preserves_flags, readonly),
            );
        }
        // Equal lanes become bytes of all ones, and each byte a bit.
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let wanted = _mm_set1_epi16(lane as i16);
            let low = _mm_packs_epi16(_mm_cmpeq_epi16(a, wanted), _mm_cmpeq_epi16(b, wanted));
            let high = _mm_packs_epi16(_mm_cmpeq_epi16(c, wanted), _mm_cmpeq_epi16(d, wanted));
            let bits = _mm_movemask_epi8(low) as u32 | (_mm_movemask_epi8(high) as u32) << 16;
            bits & 0x0fff_ffff
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A processor with AVX runs one of them only.
        #[test]
        fn lines_are_copied_alike_with_and_without_avx() {
            for lines in 1..6 {
                for (skip, into) in [(0, 0), (1, 3), (8, 31), (63, 64)] {
                    let size = lines * 64;
                    let from: Vec<u8> =
                        (0..skip + size).map(|at| ((at * 167) >> 3) as u8).collect();
                    let copied = |copy: unsafe fn(*const u8, *mut u8, usize)| {
                        let mut to = vec![0xaa; into + size + 64];
                        // SAFETY: so many bytes are there on both sides.
                        unsafe { copy(from[skip..].as_ptr(), to[into..].as_mut_ptr(), size) };
                        assert_eq!(to[into..][..size], from[skip..]);
                        assert!(to[..into].iter().all(|&byte| byte == 0xaa), "nothing before");
                        assert!(to[into + size..].iter().all(|&byte| byte == 0xaa), "nor beyond");
                    };
                    copied(copy_lines);
                    if is_x86_feature_detected!("avx") {
                        copied(copy_lines_avx);
                    }
                }
            }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod portable {
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(in super::super) fn prefetch(_at: *const AtomicU64) {}

    pub(in super::super) fn prefetch_for_writing(_at: *const AtomicU64) {}

    /// # Safety
    ///
    /// `from` points to the words of `size` bytes that live and are accessed atomically, `to` to as many bytes of the
    /// caller's own.
    #[inline]
    pub(in super::super) unsafe fn copy(from: *const AtomicU64, to: *mut u8, size: usize) {
        for word in 0..size.div_ceil(8) {
            // SAFETY: by the contract.
            unsafe {
                let bytes = (*from.add(word)).load(Ordering::Relaxed).to_ne_bytes();
                let left = (size - word * 8).min(8);
                to.add(word * 8).copy_from_nonoverlapping(bytes.as_ptr(), left);
            }
        }
    }

    /// # Safety
    ///
    /// `from` points to seven words that live and are accessed atomically.
    #[inline]
    pub(in super::super) unsafe fn lanes(from: *const AtomicU64, lane: u16) -> u32 {
        let mut found = 0;
        for word in 0..7 {
            // SAFETY: by the contract.
            let value = unsafe { (*from.add(word)).load(Ordering::Relaxed) };
            for at in 0..4 {
                found |= u32::from((value >> (at * 16)) as u16 == lane) << (word * 4 + at);
            }
        }
        found
    }

    /// Relaxed stores of words.
    ///
    /// # Safety
    ///
    /// `to` points to as many words, which live and are accessed atomically.
    #[inline]
    pub(in super::super) unsafe fn store_all(to: *const AtomicU64, words: &[[u8; 8]]) {
        for (at, &word) in words.iter().enumerate() {
            // SAFETY: one of the words.
            unsafe { &*to.add(at) }.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}
