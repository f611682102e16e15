"""Bitcraze Crazyflie 2.x quadrotor."""
