systemctl start gomux@b.service
systemctl stop gomux@a.service
