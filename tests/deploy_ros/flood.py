"""Odometry and depth at 1 kHz, a new goal every 10 ms, until it is killed."""

import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("flood")
odom = node.create_publisher(Odometry, "odom", qos_profile_sensor_data)
depth = node.create_publisher(Image, "depth", qos_profile_sensor_data)
goal = node.create_publisher(PoseStamped, "goal_pose", 1)
where, aim = Odometry(), PoseStamped()
where.pose.pose.orientation.w = aim.pose.orientation.w = 1.0
image = Image(height=16, width=64, encoding="32FC1", step=256, data=np.full((16, 64), 8.0, np.float32).tobytes())
began = time.monotonic()
count = 0
while True:
    time.sleep(max(0.0, began + count / 1000 - time.monotonic()))
    where.header.stamp = image.header.stamp = node.get_clock().now().to_msg()
    odom.publish(where)
    depth.publish(image)
    if count % 10 == 0:
        aim.pose.position.x = 4.0 + 0.01 * (count // 10 % 100)
        goal.publish(aim)
    count += 1
