//! AMX on machines that lack it: a handler of illegal instructions that does what they ask for.
//!
//! Of AMX it knows what attention in bf16 needs: `ldtilecfg`, `tilerelease`, `tilezero`, `tileloadd`, `tilestored`, `tdpbf16ps`.
//! Source: Intel, "Architecture Instruction Set Extensions Programming Reference", chapter 3.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Once;

/// Rows of a tile, and 32-bit elements of a row.
const SIDE: usize = 16;

/// The registers of a thread.
struct Registers {
    /// Rows and bytes of a row of each tile; none before `ldtilecfg` and after `tilerelease`.
    shapes: Option<[(usize, usize); 8]>,
    tiles: [[[u32; SIDE]; SIDE]; 8],
}

thread_local! {
    static REGISTERS: UnsafeCell<Registers> =
        const { UnsafeCell::new(Registers { shapes: None, tiles: [[[0; SIDE]; SIDE]; 8] }) };
}

/// Lets every thread of this process execute AMX instructions from now on, where the machine has none.
pub fn emulate() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the action is valid: zeros, but for a handler that touches nothing but the thread's own registers and the memory
        // that the instruction names.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, null_mut()), 0);
        }
    });
}

extern "C" fn handle(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the context of the interrupted thread, which is this one, and nothing else uses its registers now.
    let done = unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        REGISTERS.with(|registers| execute(&mut *registers.get(), &mut context.uc_mcontext.gregs))
    };
    if done.is_none() {
        // SAFETY: `abort` may be called in a handler.
        unsafe { libc::abort() };
    }
}

/// The general registers in the order of their numbers in an instruction.
const NUMBERED: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// An instruction behind its three bytes of VEX prefix, being read.
struct Code<'a> {
    at: *const u8,
    general: &'a [i64],
    /// The high bits of the numbers of `rm` or base, and of an index.
    b: usize,
    x: usize,
}

impl Code<'_> {
    unsafe fn byte(&mut self) -> u8 {
        // SAFETY: the instruction was fetched from there.
        unsafe {
            let byte = *self.at;
            self.at = self.at.add(1);
            byte
        }
    }

    fn general(&self, number: usize) -> usize {
        self.general[NUMBERED[number] as usize] as usize
    }

    /// The address behind a ModRM byte, and the distance of rows, which is its index.
    unsafe fn address(&mut self, modrm: u8) -> Option<(usize, usize)> {
        let (mode, low) = (modrm >> 6, usize::from(modrm & 7));
        let (base, row) = if low == 4 {
            // SAFETY: the instruction goes on.
            let sib = unsafe { self.byte() };
            let index = usize::from(sib >> 3 & 7) | self.x << 3;
            let row = if index == 4 { 0 } else { self.general(index) << (sib >> 6) };
            (usize::from(sib & 7), row)
        } else {
            (low, 0)
        };
        let mut address = match (mode, base) {
            (0, 5) | (3, _) => return None, // relative to the instruction, or no address at all: not emulated
            _ => self.general(base | self.b << 3),
        };
        let bytes = [0, 1, 4][usize::from(mode)];
        let mut displacement = 0i64;
        for i in 0..bytes {
            // SAFETY: the instruction goes on.
            displacement |= i64::from(unsafe { self.byte() }) << (8 * i);
        }
        let shift = 64 - 8 * bytes;
        if bytes > 0 {
            address = address.wrapping_add_signed((displacement << shift >> shift) as isize);
        }
        Some((address, row))
    }
}

/// Executes the instruction at the instruction pointer and moves it behind; none where it is not one of AMX.
unsafe fn execute(registers: &mut Registers, general: &mut [i64; 23]) -> Option<()> {
    let start = general[libc::REG_RIP as usize] as *const u8;
    let mut code = Code { at: start, general, b: 0, x: 0 };
    // SAFETY: the machine fetched this instruction. The memory that it names is valid as it would have to be for the machine.
    unsafe {
        let [vex, second, third, opcode, modrm] = std::array::from_fn(|_| code.byte());
        if vex != 0xC4 || second & 0x1F != 2 || third & 0x84 != 0 {
            return None; // not VEX.128.0F38.W0
        }
        (code.x, code.b) = (usize::from(!second >> 6 & 1), usize::from(!second >> 5 & 1));
        let (prefix, source) = (third & 3, usize::from(!third >> 3 & 15));
        let (register, rm) = (usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
        match (prefix, opcode, modrm >> 6) {
            (0, 0x49, 3) => registers.shapes = None,   // tilerelease
            (3, 0x49, 3) => registers.zero(register)?, // tilezero
            (0, 0x49, _) => {
                let (address, _) = code.address(modrm)?;
                registers.configure(&*(address as *const [u8; 64]))?; // ldtilecfg
            }
            (3, 0x4B, _) => {
                let (address, row) = code.address(modrm)?;
                registers.load(register, address, row)?; // tileloadd
            }
            (2, 0x4B, _) => {
                let (address, row) = code.address(modrm)?;
                registers.store(register, address, row)?; // tilestored
            }
            (2, 0x5C, 3) => registers.dot(register, rm, source)?, // tdpbf16ps
            _ => return None,
        }
    }
    general[libc::REG_RIP as usize] = code.at as i64;
    Some(())
}

impl Registers {
    fn configure(&mut self, memory: &[u8; 64]) -> Option<()> {
        if memory[0] != 1 {
            return None;
        }
        let shape =
            |i: usize| (usize::from(memory[48 + i]), usize::from(u16::from_le_bytes([memory[16 + 2 * i], memory[17 + 2 * i]])));
        let shapes = std::array::from_fn(shape);
        if shapes.iter().any(|&(rows, bytes)| rows > SIDE || bytes > 4 * SIDE || bytes % 4 != 0) {
            return None;
        }
        self.shapes = Some(shapes);
        self.tiles = Default::default();
        Some(())
    }

    fn zero(&mut self, i: usize) -> Option<()> {
        self.shapes?;
        self.tiles[i] = Default::default();
        Some(())
    }

    unsafe fn load(&mut self, i: usize, address: usize, row: usize) -> Option<()> {
        let (rows, bytes) = self.shapes?[i];
        self.tiles[i] = Default::default();
        for (r, to) in self.tiles[i].iter_mut().enumerate().take(rows) {
            let from = address.wrapping_add(r.wrapping_mul(row)) as *const u8;
            // SAFETY: the instruction reads so many bytes there.
            unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr().cast(), bytes) };
        }
        Some(())
    }

    unsafe fn store(&mut self, i: usize, address: usize, row: usize) -> Option<()> {
        let (rows, bytes) = self.shapes?[i];
        for (r, from) in self.tiles[i].iter().enumerate().take(rows) {
            let to = address.wrapping_add(r.wrapping_mul(row)) as *mut u8;
            // SAFETY: the instruction writes so many bytes there.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().cast(), to, bytes) };
        }
        Some(())
    }

    /// `C += A·B`: two sums from zero for each element, over the first and the second halves, then their sum.
    fn dot(&mut self, c: usize, a: usize, b: usize) -> Option<()> {
        let shapes = self.shapes?;
        let ((rows, columns), depth) = ((shapes[c].0, shapes[c].1 / 4), shapes[a].1 / 4);
        if (shapes[a].0, shapes[b]) != (rows, (depth, 4 * columns)) {
            return None;
        }
        let (a, b) = (self.tiles[a], self.tiles[b]);
        for (a, c) in a.iter().zip(&mut self.tiles[c]).take(rows) {
            let (mut first, mut second) = ([0f32; SIDE], [0f32; SIDE]);
            for (x, b) in a.iter().zip(&b).take(depth) {
                for (n, y) in b.iter().enumerate() {
                    first[n] = flush(first[n] + flush(low(*x) * low(*y)));
                    second[n] = flush(second[n] + flush(high(*x) * high(*y)));
                }
            }
            for (n, c) in c.iter_mut().enumerate().take(columns) {
                *c = flush(flush(f32::from_bits(*c)) + flush(first[n] + second[n])).to_bits();
            }
        }
        Some(())
    }
}

fn low(pair: u32) -> f32 {
    flush(f32::from_bits(pair << 16))
}

fn high(pair: u32) -> f32 {
    flush(f32::from_bits(pair & 0xFFFF_0000))
}

/// A subnormal number is 0.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}
