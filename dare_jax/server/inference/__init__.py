"""The Open Inference Protocol, version 2, over HTTP: tensors in, tensors out.

Inputs of b users, with c candidates each and up to l behaviors, oldest first:

- `user_id` [b], or `history.FIELD` [b, l] for every field, of which in each row
  the first `history_length` [b] count, all where that is not given;
- `history.time` [b, l] and `time` [b] of models that read times;
- `candidates.FIELD` [b, c] for every field;
- `context.FIELD` [b] for every context field.

Raw values are BYTES (text) or whole numbers. Outputs: `logit` and `probability`
FP32 [b, c], `unknown` BOOL [b, c, fields]; where asked for by name,
`found_position` INT32 and `found_weight` FP32 [b, c, top_k]: position 1 is the
most recent behavior, 0 stands for none. Tensors may be binary, as in the
protocol's extension for binary data.
"""
