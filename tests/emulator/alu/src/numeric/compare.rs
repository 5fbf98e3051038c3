//! Comparisons and what they combine with.

/// A comparison known at compile time. The ordered ones are false and the unordered ones true for NaN
/// operands.
pub trait Comparison {
    /// Whether it holds.
    fn holds<T: PartialOrd>(a: T, b: T) -> bool;
}

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident |$a:ident, $b:ident| $holds:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl Comparison for $name {
                #[inline(always)]
                // Unordered operands make a difference that these lints do not see.
                #[allow(clippy::double_comparisons, clippy::eq_op, clippy::neg_cmp_op_on_partial_ord)]
                fn holds<T: PartialOrd>($a: T, $b: T) -> bool {
                    $holds
                }
            }
        )*
    };
}

comparisons! {
    /// Equal.
    Eq |a, b| a == b;
    /// Ordered and not equal.
    Ne |a, b| a < b || a > b;
    /// Less.
    Lt |a, b| a < b;
    /// Less or equal.
    Le |a, b| a <= b;
    /// Greater.
    Gt |a, b| a > b;
    /// Greater or equal.
    Ge |a, b| a >= b;
    /// Equal or unordered.
    Equ |a, b| !(a < b || a > b);
    /// Not equal or unordered.
    Neu |a, b| a != b;
    /// Less or unordered.
    Ltu |a, b| !(a >= b);
    /// Less, equal or unordered.
    Leu |a, b| !(a > b);
    /// Greater or unordered.
    Gtu |a, b| !(a <= b);
    /// Greater, equal or unordered.
    Geu |a, b| !(a < b);
    /// Ordered: neither is NaN.
    Num |a, b| a == a && b == b;
    /// Unordered: one is NaN.
    Nan |a, b| a != a || b != b;
}

/// How the result of a comparison combines with a predicate.
pub trait Combination {
    /// The combined predicate.
    fn combine(compared: bool, predicate: bool) -> bool;
}

macro_rules! combinations {
    ($($name:ident $operator:tt,)*) => {
        $(
            #[doc = concat!("`", stringify!($operator), "`.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl Combination for $name {
                #[inline(always)]
                fn combine(compared: bool, predicate: bool) -> bool {
                    compared $operator predicate
                }
            }
        )*
    };
}

combinations! {
    And &,
    Or |,
    Xor ^,
}
