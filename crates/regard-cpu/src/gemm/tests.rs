//! Matrix products against f64.

use half::bf16;
use regard_testing::rng::Rng;
use regard_testing::tolerance::gamma;

use super::*;

/// Every kernel; that of AMX too, emulated where the machine has none.
#[allow(unsafe_code)]
pub(crate) fn kernels() -> Vec<Kernel> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
    if Kernel::named("amx").is_err() {
        regard_testing::amx::emulate();
        // SAFETY: the handler executes what the processor does not.
        unsafe { crate::assume_amx() };
    }
    Kernel::available()
}

fn random(n: usize, rng: &mut Rng) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

#[test]
fn it_is_the_product_of_f64_whatever_the_sizes() {
    let mut rng = Rng::new(1);
    for kernel in kernels() {
        for (rows, outputs, inputs) in
            [(1, 1, 1), (1, 64, 3), (5, 65, 7), (13, 130, 64), (100, 7, 33), (3, 2000, 300), (70, 257, 129)]
        {
            let (w, x, b) = (random(outputs * inputs, &mut rng), random(rows * inputs, &mut rng), random(outputs, &mut rng));
            let packed = PackedMatrix::with_kernel(&w, outputs, inputs, kernel).unwrap();
            let (mut plain, mut biased) = (vec![f32::NAN; rows * outputs], vec![f32::NAN; rows * outputs]);
            packed.apply(&x, None, &mut plain).unwrap();
            packed.apply(&x, Some(&b), &mut biased).unwrap();
            for (i, (&y, &z)) in plain.iter().zip(&biased).enumerate() {
                let (x, w) = (&x[i / outputs * inputs..][..inputs], &w[i % outputs * inputs..][..inputs]);
                let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let (exact, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                let off = (f64::from(y) - exact).abs();
                assert!(off <= gamma(inputs) * size, "{kernel:?} {rows}x{outputs}x{inputs} at {i}: {y}, not {exact}");
                assert_eq!(z, y + b[i % outputs]);
            }
        }
    }
}

fn a_row_is_the_same<T: Element>() {
    let mut rng = Rng::new(2);
    let (rows, outputs, inputs) = (330, 300, 610); // several parts of rows and of sums, with ends
    let w: Vec<T> = random(outputs * inputs, &mut rng).into_iter().map(T::from_f32).collect();
    let x = random(rows * inputs, &mut rng);
    for kernel in kernels() {
        let packed = PackedMatrix::with_kernel(&w, outputs, inputs, kernel).unwrap();
        let apply = |x: &[f32], threads| {
            let mut y = vec![0.0; x.len() / inputs * outputs];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| packed.apply(x, None, &mut y)).unwrap();
            y
        };
        let all = apply(&x, 1);
        for threads in [2, 3, 8] {
            assert_eq!(all, apply(&x, threads), "{kernel:?}");
            for n in [1, 2, 11, 37, 270] {
                let some = apply(&x[5 * inputs..(5 + n) * inputs], threads);
                assert_eq!(all[5 * outputs..(5 + n) * outputs], some, "{kernel:?} {n}");
            }
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_any_batch_on_any_number_of_threads() {
    a_row_is_the_same::<f32>();
    a_row_is_the_same::<bf16>();
}

/// What a kernel may round of a product with bf16 weights: rows of `X`, to bf16, where it multiplies pairs.
fn rounded(kernel: Kernel, x: &[f32]) -> Vec<f32> {
    match kernel.pairs() {
        Some(_) => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        None => x.to_vec(),
    }
}

#[test]
fn weights_of_bf16_are_multiplied_as_they_are() {
    let mut rng = Rng::new(3);
    for kernel in kernels() {
        for (rows, outputs, inputs) in [(1, 1, 1), (5, 65, 7), (13, 130, 64), (100, 7, 33), (3, 500, 300), (70, 257, 129)] {
            let w: Vec<bf16> = random(outputs * inputs, &mut rng).into_iter().map(bf16::from_f32).collect();
            let x = random(rows * inputs, &mut rng);
            let packed = PackedMatrix::with_kernel(&w, outputs, inputs, kernel).unwrap();
            let mut y = vec![f32::NAN; rows * outputs];
            // What was multiplied before leaves nothing behind.
            let other = PackedMatrix::with_kernel(&[bf16::ONE; 700], 1, 700, kernel).unwrap();
            other.apply(&[f32::NAN; 700 * 200], None, &mut [0.0; 200]).unwrap();
            packed.apply(&x, None, &mut y).unwrap();
            let x = rounded(kernel, &x);
            for (i, &y) in y.iter().enumerate() {
                let (x, w) = (&x[i / outputs * inputs..][..inputs], &w[i % outputs * inputs..][..inputs]);
                let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * w.to_f64());
                let (exact, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                let off = (f64::from(y) - exact).abs();
                assert!(off <= gamma(inputs + 2) * size, "{kernel:?} {rows}x{outputs}x{inputs} at {i}: {y}, not {exact}");
            }
        }
    }
}

/// `f` of two products is what it is of each by itself, whoever computes it.
#[test]
fn products_are_combined_block_by_block() {
    let mut rng = Rng::new(4);
    let (outputs, inputs) = (75, 300);
    let weights: Vec<[bf16; 2]> = (0..outputs * inputs).map(|_| [(); 2].map(|()| bf16::from_f64(rng.normal()))).collect();
    let side = |i: usize| weights.iter().map(|w| w[i]).collect::<Vec<_>>();
    let bias = random(outputs, &mut rng);
    for kernel in kernels() {
        let [gate, up] = [0, 1].map(|i| PackedMatrix::with_kernel(&side(i), outputs, inputs, kernel).unwrap());
        for rows in [1, 20, 150, 300] {
            let x = random(rows * inputs, &mut rng);
            let mut alone = [0, 1].map(|_| vec![0.0; rows * outputs]);
            gate.apply(&x, Some(&bias), &mut alone[0]).unwrap();
            up.apply(&x, None, &mut alone[1]).unwrap();
            let expected: Vec<f32> = alone[0].iter().zip(&alone[1]).map(|(gate, up)| gate.max(0.0) * up).collect();
            for threads in [Threads::All, Threads::This] {
                let mut y = vec![f32::NAN; rows * outputs];
                let f = |[gate, up]: [&mut [f32]; 2]| gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = gate.max(0.0) * *up);
                PackedMatrix::combine([(&gate, Some(&bias)), (&up, None)], &x, f, &mut y, threads).unwrap();
                assert!(y == expected, "{kernel:?} {rows} {threads:?}");
            }
        }
        let other = PackedMatrix::with_kernel(&side(0)[..74 * inputs], 74, inputs, kernel).unwrap();
        let error = PackedMatrix::combine([(&gate, None), (&other, None)], &[0.0; 300], |_| {}, &mut [0.0; 75], Threads::All);
        let text = "a product of several matrices is not supported where their sizes or kernels differ: pack them alike";
        assert_eq!(error.unwrap_err().to_string(), text);
    }
}

/// A function may multiply itself, in the thread that calls it.
#[test]
fn products_may_be_nested() {
    for kernel in kernels() {
        let one = PackedMatrix::with_kernel(&[bf16::ONE; 40 * 64], 40, 64, kernel).unwrap();
        let f = |[y]: [&mut [f32]; 1]| {
            let mut inner = [0.0; 40];
            PackedMatrix::combine([(&one, None)], &[2.0; 64], |_| {}, &mut inner, Threads::This).unwrap();
            y.iter_mut().for_each(|y| *y += inner[7]);
        };
        let mut y = [0.0; 100 * 40];
        PackedMatrix::combine([(&one, None)], &[1.0; 100 * 64], f, &mut y, Threads::This).unwrap();
        assert!(y.iter().all(|y| *y == 64.0 + 128.0), "{kernel:?}");
    }
}

#[test]
fn an_activation_is_applied_to_sum_and_bias() {
    let packed = PackedMatrix::new(&[1.0f32, 2.0, -3.0, 4.0], 2, 2).unwrap();
    let mut y = [f32::NAN; 2];
    packed.apply_with(&[1.0, 1.0], Some(&[0.5, -2.0]), |y| y.max(0.0), &mut y).unwrap();
    assert_eq!(y, [3.5, 0.0]);
}

#[test]
fn sizes_that_do_not_fit_are_refused_and_nothing_of_nothing_is_nothing() {
    let short = PackedMatrix::new(&[0.0f32; 5], 2, 3).unwrap_err().to_string();
    assert_eq!(short, "weight matrix has 5 elements and needs 6, for its rows and columns");
    assert!(PackedMatrix::new::<f32>(&[], usize::MAX, 3).unwrap_err().to_string().contains("more elements than the machine"));
    let packed = PackedMatrix::new(&[1.0f32; 6], 2, 3).unwrap();
    assert_eq!((packed.outputs(), packed.inputs()), (2, 3));
    assert!(packed.apply(&[0.0; 4], None, &mut [0.0; 2]).unwrap_err().to_string().starts_with("input of a matrix product has 4"));
    assert!(packed.apply(&[0.0; 3], None, &mut [0.0; 3]).unwrap_err().to_string().starts_with("output of a matrix product has 3"));
    assert!(packed.apply(&[0.0; 3], Some(&[0.0]), &mut [0.0; 2]).unwrap_err().to_string().starts_with("bias of a matrix product"));
    packed.apply(&[], None, &mut []).unwrap();
    let mut y = [7.0; 4];
    PackedMatrix::new::<f32>(&[], 2, 0).unwrap().apply(&[], Some(&[1.0, 2.0]), &mut y).unwrap();
    assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
}
