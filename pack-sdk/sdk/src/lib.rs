//! What a pack author depends on: the typed graph builder, ready-made blocks, export_pack!.
