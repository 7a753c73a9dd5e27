//! What is being done with something, and what was done.

use leptos::prelude::*;
use vimana_model::event::EventView;
use vimana_model::image::ImageView;
use vimana_model::operation::{Object, OperationView};
use vimana_model::vm::VmView;

use super::{About, Live, Timeline, merge_operation};

/// Newest first.
pub type Operations = ArcRwSignal<Vec<OperationView>>;

/// What a page shows beside the thing itself.
#[derive(Clone, Default)]
pub struct History {
    pub events: Timeline,
    pub operations: Operations,
}

/// Something that operations work on.
trait Worked: Send + Sync + 'static {
    fn operation(&mut self) -> Option<&mut OperationView>;
    fn peek(&self) -> Option<&OperationView>;
}

impl Worked for VmView {
    fn operation(&mut self) -> Option<&mut OperationView> {
        self.operation.as_mut()
    }
    fn peek(&self) -> Option<&OperationView> {
        self.operation.as_ref()
    }
}

impl Worked for ImageView {
    fn operation(&mut self) -> Option<&mut OperationView> {
        self.operation.as_mut()
    }
    fn peek(&self) -> Option<&OperationView> {
        self.operation.as_ref()
    }
}

impl Live {
    /// Takes in the past of something, and gives what stays up to date.
    /// `newest` is the operation that the thing itself is known to have.
    pub fn open_history(
        &self,
        about: About,
        events: Vec<EventView>,
        operations: Vec<OperationView>,
        newest: Option<OperationView>,
    ) -> History {
        let known = self.lock().operations.entry(about).or_default().clone();
        known.update(|known| {
            for operation in operations.into_iter().rev().chain(newest) {
                merge_operation(known, operation);
            }
        });
        History {
            events: self.open_timeline(about, events),
            operations: known,
        }
    }

    /// What an event said of the operation, for the page that lists them.
    pub(super) fn put_operation(&self, about: About, operation: Option<OperationView>) {
        let operations = self.lock().operations.get(&about).cloned();
        if let (Some(operations), Some(operation)) = (operations, operation) {
            operations.update(|known| merge_operation(known, operation));
        }
    }

    pub(super) fn put_progress(&self, news: &OperationView) {
        let about = match news.object {
            Object::Vm(id) => {
                patch(self.vm(id), news);
                About::Vm(id)
            }
            Object::Image(id) => {
                patch(self.image(id), news);
                About::Image(id)
            }
        };
        let operations = self.lock().operations.get(&about).cloned();
        if let Some(operations) = operations
            && operations.with_untracked(|known| known.iter().any(|known| goes_on(known, news)))
        {
            operations.update(|known| {
                for known in known.iter_mut().filter(|known| goes_on(known, news)) {
                    known.progress = news.progress;
                }
            });
        }
    }
}

fn patch<T: Worked>(view: Option<ArcRwSignal<T>>, news: &OperationView) {
    if let Some(view) = view
        && view.with_untracked(|view| view.peek().is_some_and(|known| goes_on(known, news)))
    {
        view.update(|view| {
            if let Some(known) = view.operation() {
                known.progress = news.progress;
            }
        });
    }
}

/// Only what goes on within the step that is known to be under way.
fn goes_on(known: &OperationView, news: &OperationView) -> bool {
    let step = |operation: &OperationView| {
        let step = operation.current_step();
        step.map(|step| (step.kind, step.state, step.attempts))
    };
    known.id == news.id
        && known.progress != news.progress
        && step(known).is_some()
        && step(known) == step(news)
}
