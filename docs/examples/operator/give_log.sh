tail -n 2 office/twistd.log
