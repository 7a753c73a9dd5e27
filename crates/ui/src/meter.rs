//! How much of something is taken, and how far something is: a bar and its
//! numbers.

use leptos::prelude::*;

/// `part` of `whole` in thousandths: as long as a bar can be told apart.
#[must_use]
pub fn thousandths(part: u64, whole: u64) -> u32 {
    let of = u128::from(part) * 1000 / u128::from(whole.max(1));
    u32::try_from(of.min(1000)).unwrap_or(1000)
}

/// A bar with its numbers beside it, so that nobody has to guess from a length.
#[component]
pub fn Meter(
    /// What is measured: "Memory of host-1".
    #[prop(into)]
    label: String,
    /// What is taken, in thousandths.
    #[prop(into)]
    used: Signal<u32>,
    /// The numbers, with unit: "1.5 of 4 GiB".
    #[prop(into)]
    text: Signal<String>,
) -> impl IntoView {
    view! {
        <span class="meter">
            <meter aria-label=label aria-valuetext=text min="0" max="1000" high="850" value=used></meter>
            <span class="meter-text">{text}</span>
        </span>
    }
}

/// How far something is. The bar never runs backwards, even where more turns
/// out to be left than was known.
#[component]
pub fn Progress(
    /// What is under way: "Save the memory".
    #[prop(into)]
    label: String,
    /// What is done, in thousandths; `None` where nobody knows how much is to
    /// come.
    #[prop(into)]
    done: Signal<Option<u32>>,
    /// The numbers, with unit: "1.5 of 4 GiB".
    #[prop(into)]
    text: Signal<String>,
) -> impl IntoView {
    let most =
        Memo::new(move |before: Option<&Option<u32>>| done.get().max(before.copied().flatten()));
    let most = Signal::derive(move || most.get());
    view! {
        <span class="meter">
            <progress aria-label=label aria-valuetext=text max="1000" value=most></progress>
            <span class="meter-text">{text}</span>
        </span>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_longer_than_its_whole() {
        assert_eq!(thousandths(1, 3), 333);
        assert_eq!(thousandths(5, 3), 1000);
        assert_eq!(thousandths(u64::MAX, u64::MAX), 1000);
        assert_eq!(thousandths(0, 0), 0);
    }
}
