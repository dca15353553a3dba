# For a CPU: docker build -t ms_vireid . && docker run --rm -v "$PWD":/work ms_vireid train
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY . /ms_vireid
RUN pip install --no-cache-dir '/ms_vireid[export,search,viz]'
WORKDIR /work
ENTRYPOINT ["ms-vireid"]
