curl http://127.0.0.1:8081/healthz || tail -n 1 laptop/twistd.log
