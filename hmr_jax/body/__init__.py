"""SMPL and MANO bodies: files, kinematics, skinning, joint sets, open assets."""
