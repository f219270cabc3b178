//! What a completion says.

use rdma_sys::{ibv_wc_opcode as op, ibv_wc_status as wc};

macro_rules! statuses {
    ($($name:ident = $code:path, $words:literal;)*) => {
        /// How a piece of work ended. Every status that the verbs define, and those that they do not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Status {
            $(#[doc = $words] $name,)*
            /// a number that is in no table
            Unknown(u32),
        }

        impl Status {
            /// The status with this number.
            pub fn from_code(code: u32) -> Status {
                match code {
                    $(code if code == $code => Status::$name,)*
                    other => Status::Unknown(other),
                }
            }

            /// In words.
            pub fn words(self) -> &'static str {
                match self {
                    $(Status::$name => $words,)*
                    Status::Unknown(_) => "a status that is in no table",
                }
            }

            #[cfg(test)]
            const KNOWN: &'static [(u32, Status)] = &[$(($code, Status::$name),)*];
        }
    };
}

statuses! {
    Success = wc::IBV_WC_SUCCESS, "done";
    LocalLength = wc::IBV_WC_LOC_LEN_ERR, "a message is longer than the receive posted for it";
    LocalQueuePairOperation = wc::IBV_WC_LOC_QP_OP_ERR, "the queue pair could not do the work";
    LocalEndToEndContextOperation = wc::IBV_WC_LOC_EEC_OP_ERR, "the end-to-end context could not do the work";
    LocalProtection = wc::IBV_WC_LOC_PROT_ERR, "local memory is not registered for this";
    Flushed = wc::IBV_WC_WR_FLUSH_ERR, "flushed: the queue pair is in the error state";
    MemoryWindowBind = wc::IBV_WC_MW_BIND_ERR, "a memory window cannot be bound";
    BadResponse = wc::IBV_WC_BAD_RESP_ERR, "the peer answered what cannot be";
    LocalAccess = wc::IBV_WC_LOC_ACCESS_ERR, "the peer wrote where it must not";
    RemoteInvalidRequest = wc::IBV_WC_REM_INV_REQ_ERR, "the peer finds the message invalid";
    RemoteAccess = wc::IBV_WC_REM_ACCESS_ERR, "the peer refuses access to its memory";
    RemoteOperation = wc::IBV_WC_REM_OP_ERR, "the peer could not do its part";
    RetryExceeded = wc::IBV_WC_RETRY_EXC_ERR, "the peer does not answer any more";
    ReceiverNotReadyRetryExceeded = wc::IBV_WC_RNR_RETRY_EXC_ERR, "the peer was not ready to receive for too long";
    LocalDomainViolation = wc::IBV_WC_LOC_RDD_VIOL_ERR, "the reliable datagram domain is another one";
    RemoteInvalidReadRequest = wc::IBV_WC_REM_INV_RD_REQ_ERR, "the peer refuses the read";
    RemoteAborted = wc::IBV_WC_REM_ABORT_ERR, "the peer aborted the work";
    InvalidEndToEndContextNumber = wc::IBV_WC_INV_EECN_ERR, "the end-to-end context number is invalid";
    InvalidEndToEndContextState = wc::IBV_WC_INV_EEC_STATE_ERR, "the end-to-end context is in the wrong state";
    Fatal = wc::IBV_WC_FATAL_ERR, "a fatal error of the device";
    ResponseTimeout = wc::IBV_WC_RESP_TIMEOUT_ERR, "the answer came too late";
    General = wc::IBV_WC_GENERAL_ERR, "an error of the device that it does not explain";
    TagMatching = wc::IBV_WC_TM_ERR, "an error of tag matching";
    TagMatchingIncomplete = wc::IBV_WC_TM_RNDV_INCOMPLETE, "a tag-matching transfer is not complete";
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Status::Unknown(code) => write!(f, "status {code}, which is in no table"),
            known => f.write_str(known.words()),
        }
    }
}

/// What kind of work has ended. Meaningless where the status is not [`Status::Success`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// a SEND of ours
    Send,
    /// an RDMA WRITE of ours
    Write,
    /// a SEND of the peer has arrived
    Received,
    /// an RDMA WRITE of the peer announced itself
    ReceivedWrite,
    /// anything else
    Other(u32),
}

impl Opcode {
    /// The opcode with this number.
    pub fn from_code(code: u32) -> Opcode {
        match code {
            op::IBV_WC_SEND => Opcode::Send,
            op::IBV_WC_RDMA_WRITE => Opcode::Write,
            op::IBV_WC_RECV => Opcode::Received,
            op::IBV_WC_RECV_RDMA_WITH_IMM => Opcode::ReceivedWrite,
            other => Opcode::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_value_and_words_and_unknown_ones_too() {
        for (code, status) in Status::KNOWN {
            assert_eq!(Status::from_code(*code), *status);
            assert!(!status.words().is_empty());
        }
        assert_eq!(Status::KNOWN.len(), 24);
        assert_eq!(Status::from_code(24), Status::Unknown(24));
        assert_eq!(
            Status::from_code(u32::MAX).to_string(),
            "status 4294967295, which is in no table"
        );
    }
}
