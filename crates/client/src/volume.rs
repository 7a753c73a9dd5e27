//! Volumes.

use vimana_model::event::EventView;
use vimana_model::volume::{
    AcceptedVolume, AttachVolume, ChangeVolume, CloneVolume, CreateVolume, GrowVolume, MoveVolume,
    VolumeView,
};
use vimana_model::{Result, VmId, VolumeId};

use crate::Client;
use crate::transport::Items;

impl Client {
    /// The tenant's own, by name.
    pub async fn volumes(&self) -> Result<Vec<VolumeView>> {
        let list: Items<_> = self.get("/api/v1/volumes").await?;
        Ok(list.items)
    }

    pub async fn volume(&self, id: VolumeId) -> Result<VolumeView> {
        self.get(&of(id)).await
    }

    pub async fn create_volume(&self, form: &CreateVolume) -> Result<VolumeView> {
        self.post_json("/api/v1/volumes", form).await
    }

    pub async fn change_volume(&self, id: VolumeId, form: &ChangeVolume) -> Result<VolumeView> {
        self.patch_json(&of(id), form).await
    }

    pub async fn delete_volume(&self, id: VolumeId) -> Result<VolumeView> {
        self.delete(&of(id)).await
    }

    pub async fn attach_volume(&self, id: VolumeId, vm_id: VmId) -> Result<AcceptedVolume> {
        let form = AttachVolume { vm_id };
        self.post_json(&format!("{}/attach", of(id)), &form).await
    }

    pub async fn detach_volume(&self, id: VolumeId) -> Result<AcceptedVolume> {
        self.post(&format!("{}/detach", of(id))).await
    }

    pub async fn move_volume(&self, id: VolumeId, form: &MoveVolume) -> Result<AcceptedVolume> {
        self.post_json(&format!("{}/move", of(id)), form).await
    }

    pub async fn grow_volume(&self, id: VolumeId, form: GrowVolume) -> Result<AcceptedVolume> {
        self.post_json(&format!("{}/grow", of(id)), &form).await
    }

    pub async fn clone_volume(&self, id: VolumeId, form: &CloneVolume) -> Result<AcceptedVolume> {
        self.post_json(&format!("{}/clone", of(id)), form).await
    }

    /// Oldest first.
    pub async fn volume_timeline(&self, id: VolumeId) -> Result<Vec<EventView>> {
        let list: Items<_> = self.get(&format!("{}/timeline", of(id))).await?;
        Ok(list.items)
    }
}

fn of(id: VolumeId) -> String {
    format!("/api/v1/volumes/{id}")
}
