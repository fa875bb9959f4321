"""The engine: what trains any task safely and fast. You can use it without reading it; this page says what it offers.

A run, in the order of its life:
    experiments  a folder with a params.json: read, checked, varied (load_experiment)
    params       the parameters all tasks share; messages about what is wrong in a file
    tasks        the parts of a task, found by name
    start        how a run starts: new, from weights, resumed, or finished (open_run)
    run          what it does each step, all that a checkpoint holds, and divergence (Run)
    records      what it leaves in its folder: run.json, history.jsonl, metrics, TensorBoard
    checkpoints  written whole, checked by digest when read; damaged ones are replaced
    locks        one run at a time in a folder
    signals      Ctrl-C and SIGTERM stop a run between two batches
    commands     how a command ends: a message and an exit status, or a traceback for a bug (run_command)

What the loop uses:
    loaders      Dataset and ArrayDataset, batches, their order: a function of (seed, epoch)
    metrics      metrics that are sums of counts: of classes, of labels, of numbers
    ranking      which of two results is better
    optimizers   optimizers, schedules, clipping
    devices      device, precision, random states
    summary      a network as a table

For building data sets and reporting on them:
    building     splits by hash, checks, digest, a folder that appears when it is whole
    tables       CSV files: rows, columns, how they become inputs
    cache        arrays computed once and mapped into memory
    reports      tables, pictures and predictions of classes, labels and numbers
    pictures     matplotlib, imported when the first picture is drawn

For predicting; only those marked so import torch:
    predicting   raw inputs -> records (Processing, Predictor); answers: outputs -> records
    images, rows, texts    raw inputs of the usual kinds, and how they become what a network takes
    predictions  records -> lines for a person, JSON, CSV
    torch_network, onnx_network    what answers: a checkpoint, with torch; an exported file
    exporting    ONNX graphs, checked against their network; slim weights (with torch)

Nothing here knows a task by name, and nothing here imports model/, search/ or results/.
"""
