//! Attention on arrays written down by hand: two heads, a mask of 0 and 1, and the weights.
//!
//! ```sh
//! cargo run --release -p regard --example by_hand
//! ```

use regard::teach::{Array, Error, merge_heads, scaled_dot_product_attention, split_heads};

fn main() -> Result<(), Error> {
    // Three words of four numbers each, which two heads share.
    let words = Array::from([[1.0, 0.0, 3.0, 0.0], [0.0, 1.0, 3.0, 0.0], [1.0, 1.0, 0.0, 3.0]]);
    let heads = split_heads(&words, 2)?; // [heads, length, dim]
    let causal = Array::from([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);
    let (output, weights) = scaled_dot_product_attention(&heads, &heads, &heads, Some(&causal))?;
    for (head, rows) in weights.data().chunks(9).enumerate() {
        println!("head {head}: weights of each word");
        rows.chunks(3).for_each(|row| println!("  {:.2}  {:.2}  {:.2}", row[0], row[1], row[2]));
    }
    println!("output {:?}: {:.2?}", merge_heads(&output)?.shape(), merge_heads(&output)?.data());

    // What is wrong says how to repair it.
    let keys = heads.transpose();
    let narrow = Array::from([[[1.0], [2.0]], [[3.0], [4.0]]]);
    for wrong in [
        scaled_dot_product_attention(&heads, &keys, &narrow, None).map(|_| ()),
        split_heads(&words, 3).map(|_| ()),
        regard::teach::check_weights(&words),
    ] {
        println!("{}", wrong.expect_err("a mistake"));
    }
    Ok(())
}
