python3 -m venv venv
. venv/bin/activate
pip install --quiet '../gomux[metrics]'
cp -r ../gomux/docs/examples/operator/*/ .
