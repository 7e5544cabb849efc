"""Triton with its Python backend over onnxruntime, from the nvidia-pytriton wheel. Arguments: port, folder to work in.

The wheel carries the server and this backend, not Triton's onnxruntime backend, and no wheel does.
"""

import os
import pathlib
import shutil
import sys
import sysconfig

MODEL = """
import os
import onnxruntime
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = os.environ["BENCH_MODEL"]
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.taken, self.given = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, self.taken).as_numpy()
            y = self.session.run(None, {self.taken: x})[0]
            answers.append(pb.InferenceResponse([pb.Tensor(self.given, y)]))
        return answers
"""
CONFIG = """name: "m"
backend: "python"
max_batch_size: 65536
input [{{name: "{taken.name}", data_type: TYPE_FP32, dims: [{takes}]}}]
output [{{name: "{given.name}", data_type: TYPE_FP32, dims: [{gives}]}}]
instance_group [{{kind: KIND_CPU, count: 1}}]
"""


def main() -> None:
    import onnxruntime
    import pytriton

    session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], providers=["CPUExecutionProvider"])
    taken, given = session.get_inputs()[0], session.get_outputs()[0]
    shipped, work = pathlib.Path(pytriton.__file__).parent / "tritonserver", pathlib.Path(sys.argv[2])
    shutil.copytree(shipped / "backends", work / "backends")
    stub = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(shipped / "python_backend_stubs" / stub / "triton_python_backend_stub", work / "backends" / "python")
    (work / "models" / "m" / "1").mkdir(parents=True)
    (work / "models" / "m" / "1" / "model.py").write_text(MODEL)
    takes, gives = (", ".join(map(str, node.shape[1:])) for node in (taken, given))
    config = CONFIG.format(taken=taken, given=given, takes=takes, gives=gives)
    (work / "models" / "m" / "config.pbtxt").write_text(config)
    # its stub must load this interpreter's libpython, not the system's
    libraries = shipped.parent.parent / "nvidia_pytriton.libs"
    os.environ["LD_LIBRARY_PATH"] = f"{libraries}:{sysconfig.get_config_var('LIBDIR')}"
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    server = str(shipped / "bin" / "tritonserver")
    folders = [f"--model-repository={work / 'models'}", f"--backend-directory={work / 'backends'}"]
    ports = ["--http-address=127.0.0.1", f"--http-port={sys.argv[1]}", "--allow-grpc=false", "--allow-metrics=false"]
    os.execv(server, [server, *folders, *ports])


if __name__ == "__main__":
    main()
