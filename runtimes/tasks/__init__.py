"""Tasks of saved pipelines, run natively: texts and pictures to tensors, one network, its scores to answers.

    step.py      `TaskRuntime`: rows in, rows out                network.py   the network, rows of one shape at once
    text.py      a tokenizer                                     classes.py   labels and features of one forward pass
    picture.py   pixels, resized, cropped, scaled                zero_shot.py labels that the request brings
    resample.py  resizing as Pillow does it                      answering.py spans of a context
    task.py      what a task is asked for                        scores.py    softmax, sigmoid, the best

Nothing of the user's is executed: `TaskSpec` and `tokenizer.json` are data. What each task does was read from the
pipelines of transformers 4.57 and is proven against them whenever a model is packaged.
"""

from runtimes.tasks.step import TaskRuntime, load

__all__ = ["TaskRuntime", "load"]
