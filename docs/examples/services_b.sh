twistd -n gomux --psk-file gomux.psk --connect tcp:a.example:7000 --forward web=tcp:8080
