"""The second proof, in exact rational arithmetic, that shares no arithmetic with the first."""
