echo "set server gomux/g2 state drain" | socat - /run/haproxy/gomux.sock
systemctl stop gomux@2.service
