"""The ament_python package ``omnibody_ros``: ``colcon build`` in a workspace that holds this folder.

It installs programs, launch files and parameter files; the code behind them is the Python package ``omnibody``, which
pip installs.
"""

from glob import glob

from setuptools import setup

NAME = "omnibody_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[],
    py_modules=[],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Omnibody developers",
    maintainer_email="omnibody@users.noreply.github.com",
    description="Drives a robot with an Omnibody policy, or simulates one.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "policy_node = omnibody.deploy_ros.policy_node:main",
            "sim_node = omnibody.deploy_ros.workstation.sim_node:main",
            "eval_node = omnibody.deploy_ros.workstation.eval_node:main",
        ],
    },
)
