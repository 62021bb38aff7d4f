//! Generic doors to code that is compiled once for each element type, in this crate: a program that calls one would compile all kernels
//! again for each of its crates.

/// `pub fn name<T>(arguments) -> Out = body;` makes a door to the generic function `body`.
macro_rules! per_element {
    ($(#[$doc:meta])* pub fn $name:ident<T>($($argument:ident: $type:ty),* $(,)?) = $body:path;) => {
        per_element! { $(#[$doc])* pub fn $name<T>($($argument: $type),*) -> () = $body; }
    };
    ($(#[$doc:meta])* pub fn $name:ident<T>($($argument:ident: $type:ty),* $(,)?) -> $out:ty = $body:path;) => {
        $(#[$doc])*
        pub fn $name<'a, T: regard_core::Element>($($argument: $type),*) -> $out {
            struct Job<'a>(std::marker::PhantomData<&'a ()>);

            impl<'a> regard_core::PerElement for Job<'a> {
                type In<T: regard_core::Element> = ($($type,)*);
                type Out = $out;

                fn f32(($($argument,)*): Self::In<f32>) -> $out {
                    $body($($argument),*)
                }

                fn bf16(($($argument,)*): Self::In<half::bf16>) -> $out {
                    $body($($argument),*)
                }

                fn f16(($($argument,)*): Self::In<half::f16>) -> $out {
                    $body($($argument),*)
                }
            }

            T::run::<Job<'a>>(($($argument,)*))
        }
    };
}

pub(crate) use per_element;
