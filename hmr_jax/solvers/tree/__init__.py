"""The parts of ``fit_bones``: exact Newton steps on a kinematic tree."""
