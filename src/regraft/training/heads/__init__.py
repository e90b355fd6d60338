"""Heads, one file each: what is trained on top of the features.

A head's file has

    Options           its own choices, a frozen dataclass that checks itself
    NEEDS_HELD_OUT    whether `fit` needs validation rows, which it is not trained on, to choose by
    TRAINABLE         whether a gradient can train it, so that it can stand on a tail that is trained
    build(shape, n_outputs, options)
                      the untrained torch module: inputs (n, *shape) → logits (n, n_outputs), as many as `Loss.outputs`
    logits(weights, inputs, options)
                      the same in eval mode in NumPy, for prediction without PyTorch: `weights` is the module's
                      state_dict as arrays
    fit(train, validation, n_classes, options, fit_options, *, checkpoint=None, hooks=None, device="cpu")
                      the trained one, as `Fitted`; its state_dict fits the module that `build` gives, on the CPU
    decided(chosen, options, fit_options)
                      both options with what a fit has chosen, as `Fitted.chosen` has it, for one that chooses nothing

and imports nothing heavy until it is called: `regraft --help` reads its Options.
"""
