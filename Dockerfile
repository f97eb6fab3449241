# All scripts on a CPU. docs/VIDEOS.md has the commands.
FROM python:3.12-slim

# `docker run IMAGE track.py …` finds the script here.
WORKDIR /rde-vos

# The CPU build of torch, which is ten times smaller than the usual one.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

COPY requirements.txt .
# scikit-image has the photographs of the built-in example.
RUN pip install --no-cache-dir -r requirements.txt scikit-image

COPY . .
ENTRYPOINT ["python"]
CMD ["track.py", "--help"]
