"""The eager way out: plans applied to ordinary modules in place, and pruned modules saved and loaded.

A plan says which elements of parameters stay; that much is slicing. What remains are integers that the module's
Python code reads: ``num_heads``, ``normalized_shape``, ``head_dim``. They are found without tables of classes:

1. the shrunk graph says, module by module, which size became which (:mod:`evidence`);
2. integers that modules hold get candidates from these facts (:mod:`attributes`);
3. where several fit, the module runs, and the shapes it makes are compared with the shrunk graph's where they arise, so
   that a wrong choice is noticed in the module that made it (:mod:`trial`, :mod:`search`);
4. in the end the module is traced again and compared with the shrunk graph (:mod:`verify`), or else put back exactly as
   it was (:mod:`snapshot`), and the error names the line of code that does not follow.

Layers that a plan leaves out become modules without parameters that return what they are given (:mod:`layers`).

Floating-point attributes never change: a scale derived from a size keeps its old value, as in the shrunk graph.
"""
