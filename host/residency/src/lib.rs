//! Who holds device memory: the byte ledger, generations, leases.
