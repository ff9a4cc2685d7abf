tail -n 3 laptop/twistd.log
