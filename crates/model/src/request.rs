//! The manual life-cycle: what a user asks for, who decides about it, and how
//! it ends. Request → Provision → Operation → Release.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::error::FieldError;
use crate::name::UserName;
use crate::state::VmState;
use crate::vm::{CreateVm, VmRequest};
use crate::{Error, RequestId, TenantId, Timestamp, VmId};

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Waits for a decision.
    Request,
    /// The manager asked back; the requester answers.
    Returned,
    Rejected,
    /// The requester no longer wants it.
    Withdrawn,
    /// Approved; the VM is being made.
    Provision,
    /// The VM is there.
    Operation,
    /// The requester is done with it; a manager confirms.
    Release,
    /// Everything was given back.
    Released,
}

impl RequestState {
    pub const ALL: [Self; 8] = [
        Self::Request,
        Self::Returned,
        Self::Rejected,
        Self::Withdrawn,
        Self::Provision,
        Self::Operation,
        Self::Release,
        Self::Released,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "Request",
            Self::Returned => "Returned",
            Self::Rejected => "Rejected",
            Self::Withdrawn => "Withdrawn",
            Self::Provision => "Provision",
            Self::Operation => "Operation",
            Self::Release => "Release",
            Self::Released => "Released",
        }
    }

    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Returned => "returned",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Provision => "provision",
            Self::Operation => "operation",
            Self::Release => "release",
            Self::Released => "released",
        }
    }

    /// One sentence for a person who meets the state for the first time.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Request => "waiting for a manager's decision",
            Self::Returned => "a manager asked back; waiting for the requester's answer",
            Self::Rejected => "a manager said no",
            Self::Withdrawn => "the requester no longer wants it",
            Self::Provision => "approved; the machine is being made",
            Self::Operation => "the machine is there",
            Self::Release => "waiting for a manager to confirm the release",
            Self::Released => "everything was given back",
        }
    }

    /// Nothing ever happens to the request again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Rejected | Self::Withdrawn | Self::Released)
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such state: one of {}", RequestState::ALL.map(RequestState::slug).join(", "))]
pub struct InvalidRequestState;

impl FromStr for RequestState {
    type Err = InvalidRequestState;

    fn from_str(text: &str) -> Result<Self, InvalidRequestState> {
        Self::ALL
            .into_iter()
            .find(|state| state.slug() == text.to_ascii_lowercase())
            .ok_or(InvalidRequestState)
    }
}

/// Something a person does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RequestAction {
    /// A manager lets it be made, perhaps with changes.
    Approve,
    /// A manager says no, with a reason.
    Reject,
    /// A manager wants to know more.
    AskBack,
    /// The requester answers, perhaps with changed terms.
    Answer,
    /// The requester no longer wants it.
    Withdraw,
    /// The requester is done with the VM.
    AskRelease,
    /// A manager confirms that everything may be given back.
    ConfirmRelease,
    /// A manager, or the requester, lets it run on.
    Keep,
}

/// Who may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Requester,
    Manager,
    Either,
}

impl RequestAction {
    pub const ALL: [Self; 8] = [
        Self::Approve,
        Self::Reject,
        Self::AskBack,
        Self::Answer,
        Self::Withdraw,
        Self::AskRelease,
        Self::ConfirmRelease,
        Self::Keep,
    ];

    /// The name in the CLI and in routes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::AskBack => "ask-back",
            Self::Answer => "answer",
            Self::Withdraw => "withdraw",
            Self::AskRelease => "ask-release",
            Self::ConfirmRelease => "confirm-release",
            Self::Keep => "keep",
        }
    }

    /// What a button says.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Approve => "Approve",
            Self::Reject => "Reject",
            Self::AskBack => "Ask back",
            Self::Answer => "Answer",
            Self::Withdraw => "Withdraw",
            Self::AskRelease => "Ask for release",
            Self::ConfirmRelease => "Confirm release",
            Self::Keep => "Keep running",
        }
    }

    #[must_use]
    pub const fn side(self) -> Side {
        match self {
            Self::Approve | Self::Reject | Self::AskBack | Self::ConfirmRelease => Side::Manager,
            Self::Answer | Self::Withdraw => Side::Requester,
            Self::AskRelease | Self::Keep => Side::Either,
        }
    }

    /// Whether a text must come with it.
    #[must_use]
    pub const fn needs_remark(self) -> bool {
        matches!(self, Self::Reject | Self::AskBack | Self::Answer)
    }

    /// Whether the action is accepted in `state`.
    ///
    /// # Errors
    /// The sentence that refuses it; the request is its subject.
    pub const fn judge(self, state: RequestState) -> Result<(), Refusal> {
        use RequestState as S;
        let refusal = match (self, state) {
            (Self::Approve | Self::Reject | Self::AskBack, S::Request)
            // A manager need not wait for an answer.
            | (Self::Approve | Self::Reject, S::Returned)
            | (Self::Answer, S::Returned)
            | (Self::Withdraw, S::Request | S::Returned)
            | (Self::AskRelease, S::Operation)
            | (Self::ConfirmRelease | Self::Keep, S::Release) => return Ok(()),
            (_, S::Rejected) => "was rejected",
            (_, S::Withdrawn) => "was withdrawn",
            (_, S::Released) => "is over: everything was given back",
            (Self::Approve | Self::Reject | Self::AskBack, S::Provision | S::Operation | S::Release) => {
                "is already approved"
            }
            (Self::AskBack, S::Returned) => "already waits for the requester's answer",
            (Self::Answer, _) => "has no open question",
            (Self::Withdraw, S::Provision | S::Operation | S::Release) => {
                "is already approved; ask for its release instead"
            }
            (Self::AskRelease, S::Request | S::Returned) => "is not decided; withdraw it instead",
            (Self::AskRelease, S::Provision) => "is still being provisioned",
            (Self::AskRelease, S::Release) => "already waits for the release to be confirmed",
            (Self::ConfirmRelease | Self::Keep, S::Request | S::Returned | S::Provision | S::Operation) => {
                "has no release to decide about"
            }
        };
        Err(Refusal(refusal))
    }
}

impl fmt::Display for RequestAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A request, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RequestView {
    pub id: RequestId,
    pub tenant_id: TenantId,
    pub requester: UserName,
    pub state: RequestState,
    pub state_since: Timestamp,
    /// What is asked for, or what was approved of it.
    pub terms: CreateVm,
    /// The VM it led to.
    pub vm: Option<RequestedVm>,
    /// What was said and done, oldest first.
    pub remarks: Vec<Remark>,
    /// Grows with every change.
    pub generation: u64,
    pub created_at: Timestamp,
}

/// The VM of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RequestedVm {
    pub id: VmId,
    pub state: VmState,
}

/// One turn of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Remark {
    pub at: Timestamp,
    pub by: UserName,
    /// What was done with it; nothing for the request itself.
    pub action: Option<RequestAction>,
    /// What was said: the purpose, the reason, the question, the answer.
    pub text: String,
    /// What the terms became, where they changed: "flavor small instead of large".
    pub changes: Vec<String>,
}

/// The form that asks for a VM under the manual life-cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    pub terms: CreateVm,
    /// What it is for.
    pub purpose: String,
}

/// What comes with an action on a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RequestDecision {
    /// Reason, question or answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Other terms than those asked for: with an approval or an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<CreateVm>,
    /// Refused where the request has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// Longest text of one remark, in characters.
pub const MAX_REMARK_CHARS: usize = 2000;

impl CreateRequest {
    /// Checks every field and reports all that are wrong at once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<(VmRequest, String), Error> {
        let remark = check_remark("purpose", &self.purpose);
        match (self.terms.check(), remark) {
            (Ok(terms), Ok(purpose)) => Ok((terms, purpose)),
            (Ok(_), Err(field)) => Err(Error::invalid(vec![field])),
            (Err(error), Ok(_)) => Err(error),
            (Err(mut error), Err(field)) => {
                error.fields.push(field);
                Err(error)
            }
        }
    }
}

/// A text that is there, within bounds, without control characters but line
/// breaks; without spaces around it.
///
/// # Errors
/// The field with what is wrong.
pub fn check_remark(field: &str, text: &str) -> Result<String, FieldError> {
    let text = check_text(field, text, MAX_REMARK_CHARS)?;
    if text.is_empty() {
        return Err(FieldError::new(field, "say something here"));
    }
    Ok(text)
}

/// The same of a text that may be missing.
pub(crate) fn check_text(field: &str, text: &str, longest: usize) -> Result<String, FieldError> {
    let text = text.trim();
    if text.chars().count() > longest {
        let message = format!("at most {longest} characters");
        return Err(FieldError::new(field, message));
    }
    if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        return Err(FieldError::new(field, "no control characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_action_has_its_answer() {
        let mut table = String::new();
        for action in RequestAction::ALL {
            for state in RequestState::ALL {
                let answer = match action.judge(state) {
                    Ok(()) => "accepted".to_owned(),
                    Err(refusal) => format!("refused: the request {refusal}"),
                };
                table.push_str(&format!("{action:<15} {state:<10} {answer}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn all_wrong_fields_are_reported_at_once() {
        let form = CreateRequest::default();
        let error = form.check().unwrap_err();
        let fields: Vec<&str> = error.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "image", "flavor", "purpose"]);
    }
}
